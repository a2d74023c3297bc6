"""PROCESS work: apply the inbox, dispatch the outbox, and the loops around them.

Only `worker/apply.py` changes a payment (rule R1), in one commit (rule R3).
"""
