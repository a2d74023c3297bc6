"""What every sink is given and what it answers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OwedEffect:
    """One effect at one attempt; `id` is the same at every attempt, so that a receiver can tell a repeat."""

    id: str  #: the idempotency key that travels: the same after a restored backup, too
    effect: str  #: statemachine.phases.Effect, such as "payment.paid"
    payment_id: str | None  #: None where the effect is about an account
    attempt: int  #: 1, 2, 3, ...
    payload: str  #: the exact JSON text to send
    created_at: datetime
    traceparent: str | None = None  #: of this attempt (W3C Trace Context); travels as a header where there is one


@dataclass(frozen=True, slots=True)
class Delivered:
    """The sink has taken the effect and said so."""

    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The sink has not taken the effect, or nobody knows: an unknown outcome is a failure."""

    error: str  #: for people; never a payload, a secret or a URL's query
    http_status: int | None = None
    retry_after: float | None = None  #: seconds that the sink asked us to wait, if it did
    is_final: bool = False  #: it will never take this effect; another attempt is an operator's choice


Result = Delivered | Failed


class Sink(Protocol):
    """Where effects go. At least once: the same effect may come again after it was taken."""

    name: str

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """One attempt, and what became of it; no Exception leaves it, so that every attempt is recorded.

        A repeat with the same `owed.id` is the same effect, and the receiver must treat it so.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections and threads; a repeat does nothing."""
        ...
