"""What differs between brokers: how each is connected to, how a message is laid out, and what counts as confirmed.

One file for each broker, and the only ones that import FastStream or a driver. The sink itself lives one folder up.
"""
