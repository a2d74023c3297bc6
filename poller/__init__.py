"""PROCESS work: who has been silent too long, when to ask, asking within the provider's budget.

An answer becomes an inbox message; nothing is decided here (rule R1), and time decides nothing (rule R6).
"""
