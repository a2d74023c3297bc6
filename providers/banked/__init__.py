"""Banked: payment sessions, refunds and payouts (v2), payins (v3).

Webhooks are signed in hex; calls use Basic or OAuth.

Nothing here is shared with another provider; mandates and batches are recognised and noted, not tracked.
"""
