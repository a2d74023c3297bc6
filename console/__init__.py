"""PROCESS web: pages for people, rendered on the server.

Every action goes through the same commands as the API's.

Knows storage for reading, and for who is logged in; what changes payments and queues is given to it by the application.
"""
