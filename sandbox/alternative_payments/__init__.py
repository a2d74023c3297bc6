"""The sandbox's Alternative Payments."""
