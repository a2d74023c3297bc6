"""PROCESS web: the REST API for the merchant's systems, on FastAPI.

Reads storage and gives commands; decides nothing, and is passed its collaborators (`deps.py`).
"""
