"""Command line for operators: reads and prints; service/commands.py changes."""
