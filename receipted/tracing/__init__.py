"""Traces, an extra: from a delivery over its decision to its fulfilment. Only `telemetry` imports OpenTelemetry."""
