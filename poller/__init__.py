"""PROCESS work: poll silent payments within each provider's request budget.

An answer becomes an inbox message; nothing is decided here (rule R1), and time decides nothing (rule R6).
"""
