"""PROCESS: proves the history afterwards, from the kept bytes alone.

Reads only; a wrong row is reported, never mended.
"""
