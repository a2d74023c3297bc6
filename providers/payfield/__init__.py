"""Payfield's PayIn/Payout API: signed requests and callbacks, in two dialects.

One object per operation.

Nothing here is shared with another provider; what the provider leaves open is an option in `provider.py`.
"""
