"""The sandbox's Stable Genius."""
