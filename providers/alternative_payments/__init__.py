"""Alternative Payments: hosted payment requests, polled; webhooks are hints."""
