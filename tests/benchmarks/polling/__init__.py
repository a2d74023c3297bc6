"""The proof of the poller: one simulator with a clock that jumps, the same arrivals under every schedule."""
