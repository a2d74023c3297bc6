"""A clock that stands still until it is moved."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)


class FakeClock:
    """Gives the instant that was set; may be moved both ways."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Move on by so many seconds, backwards where they are negative."""
        self.now += timedelta(seconds=seconds)
        return self.now
