"""Demonstration: four providers with all faults, one service, one shop, and proof."""
