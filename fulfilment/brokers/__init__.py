"""Brokers: connecting to each, its message layout, and its confirmations.

One file for each broker, and the only ones that import FastStream or a driver. The sink itself lives one folder up.
"""
