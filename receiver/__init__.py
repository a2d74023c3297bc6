"""PROCESS web: deliveries, callbacks and returns are verified, recorded and answered.

Nothing is decided here, and no 2xx is sent before the commit (rules R2 and R7).
"""
