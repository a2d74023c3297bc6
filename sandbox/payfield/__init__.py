"""The sandbox's Payfield, in both dialects."""
