"""`receipted doctor`: check that a provider's deliveries reach the public URL."""
