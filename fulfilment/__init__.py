"""ADAPTER out: the sinks that effects travel to: HTTP, Python handlers, brokers and mail.

At least once, with an idempotency key (rule R4).
"""
