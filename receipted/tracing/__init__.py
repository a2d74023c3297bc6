"""Traces, an extra: from a delivery to its fulfilment. Only `telemetry` needs it."""
