"""PROCESS work: apply (inbox), dispatch (outbox), and the loops around their steps.

Only `worker/apply.py` changes a payment (rule R1), in one commit (rule R3).
"""
