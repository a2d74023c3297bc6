"""Stable Genius: USDC payment intents, signed webhooks, idempotent creation."""
