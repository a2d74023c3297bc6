"""Metrics for Prometheus, and the probes for liveness and readiness (ADR 0027)."""
