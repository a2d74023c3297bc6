"""Payfield's PayIn/Payout merchant API: signed requests, signed callbacks, one object per operation, two dialects.

Nothing here is shared with another provider; what the provider leaves open is an option in `provider.py`.
"""
