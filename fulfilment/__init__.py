"""ADAPTER out: sinks of effects: HTTP, Python handlers, brokers, mail and chat.

At least once, with an idempotency key (rule R4).
"""
