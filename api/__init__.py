"""PROCESS web: the REST API for the merchant's systems.

Reads storage and asks for commands; decides nothing, and is given all that it needs.
"""
