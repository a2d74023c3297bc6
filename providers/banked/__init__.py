"""Banked's payment sessions, refunds and payouts (v2) and payins (v3): hex-signed webhooks, Basic or OAuth calls.

Nothing here is shared with another provider; mandates and batches are recognised and noted, not tracked.
"""
