"""PROCESS web: verify, record and answer deliveries, callbacks and returns.

Nothing is decided here, and no 2xx is sent before the commit (rules R2 and R7).
"""
