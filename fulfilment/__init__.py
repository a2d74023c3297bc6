"""ADAPTER out: the sinks that effects travel to: HTTP, Python handlers and brokers.

At least once, with an idempotency key (rule R4).
"""
