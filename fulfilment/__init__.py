"""ADAPTER out: sinks of effects: HTTP, Python handlers, brokers and mail.

At least once, with an idempotency key (rule R4).
"""
