"""The command line: what an operator types. Reads and prints; what changes anything is in service/commands.py."""
