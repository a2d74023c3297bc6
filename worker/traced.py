"""Who may be told of deliveries of effects; by default nobody is."""

from typing import Protocol

from storage.outbox import Settlement
from storage.tables import OutboxMessage


class Traced(Protocol):
    """Follows effects to their sinks. Any thread may call it, it never waits, and raises nothing."""

    def traceparent(self, message: OutboxMessage) -> str | None:
        """What the next attempt to deliver the effect carries (W3C Trace Context); None where it is not followed."""
        ...

    def delivered(self, settled: Settlement) -> None:
        """An attempt is over, and that is recorded."""
        ...


class Untraced:
    """Follows nothing."""

    def traceparent(self, message: OutboxMessage) -> str | None:
        """None."""
        return None

    def delivered(self, settled: Settlement) -> None:
        """Nothing is told."""
