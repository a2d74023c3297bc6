"""What the service tells about itself: metrics for Prometheus, and whether it lives and is ready (ADR 0027)."""
