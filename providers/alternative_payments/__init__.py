"""Alternative Payments: hosted one-off payment requests, polled; webhooks that are not signed are hints only."""
