"""ADAPTER out: the sinks that effects travel to: HTTP and Python handlers.

At least once, with an idempotency key (rule R4).
"""
