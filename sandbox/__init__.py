"""PROCESS: the four providers, played over real HTTP, with faults on demand.

Shares no code with what it tests, so that a misreading cannot hide on both sides.
"""
