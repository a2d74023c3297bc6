"""ADAPTER in: one package per provider: scheme, parse, client, errors, lifecycle.

No provider imports another, and none of them knows SQL.
"""
