"""PROCESS web: pages for people. Server-rendered; every action goes through the same commands as the API's.

Knows storage for reading; what changes anything is given to it by the application.
"""
