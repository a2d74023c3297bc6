"""The demonstration: four providers with every fault on, one service, one shop, and the proof at the end."""
