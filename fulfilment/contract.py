"""The contract of sinks: which effects they are owed, one attempt, and its result."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class OwedEffect:
    """One attempt to deliver an effect.

    `id` is the same at every attempt, so that a receiver can tell a repeat.
    """

    id: str  #: the idempotency key that travels: the same after a restored backup, too
    effect: str  #: statemachine.phases.Effect, such as "payment.paid"
    payment_id: str | None  #: None where the effect is about an account
    attempt: int  #: 1, 2, 3, ...
    payload: str  #: the exact JSON text to send
    created_at: datetime
    traceparent: str | None = None  #: of this attempt (W3C Trace Context); travels as a header where there is one


#: Bytes of a sink's answer that are handed on: what is kept, and as much again as redaction may need beyond a cut.
MAX_ANSWER_BODY_BYTES: Final = 2048 + 256


@dataclass(frozen=True, slots=True)
class Delivered:
    """The sink has taken the effect and said so."""

    http_status: int | None = None
    answer: bytes = field(default=b"", repr=False)  #: the beginning of what it answered, as it came


@dataclass(frozen=True, slots=True)
class Failed:
    """The sink has not taken the effect; an unknown outcome is a failure too."""

    error: str  #: for people; never a payload, a secret or a URL's query
    http_status: int | None = None
    retry_after: float | None = None  #: seconds that the sink asked us to wait, if it did
    is_final: bool = False  #: it will never take this effect; another attempt is an operator's choice
    answer: bytes = field(default=b"", repr=False)  #: as of Delivered


Result = Delivered | Failed


class Sink(Protocol):
    """Destination of effects, at least once.

    The same effect may come again after it was taken.
    """

    name: str

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """Make one attempt and return its result; no Exception leaves it.

        So every attempt is recorded.

        A repeat with the same `owed.id` is the same effect, and the receiver must treat it so.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections and threads; a repeat does nothing."""
        ...


_REQUIRED: Final = ".review_required"
_CLOSED: Final = ".review_closed"

#: What people are told by e-mail where nothing else is said: alarms, and what a person must decide.
EMAIL_DEFAULT_PATTERNS: Final = ("account.*", f"*{_REQUIRED}")


@dataclass(frozen=True, slots=True)
class EffectFilter:
    """Filter of effects by names and by patterns in which `*` stands for anything.

    Whoever is told that a review is required is told that it is closed as well, whatever the patterns say.
    """

    patterns: tuple[str, ...] = ("*",)
    _form: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_form", re.compile("|".join(map(_form, self.patterns)) or r"(?!)"))

    def __call__(self, effect: str) -> bool:
        """Tell whether the effect is owed to the sink."""
        if self._form.fullmatch(effect):
            return True
        subject, closed, rest = effect.partition(_CLOSED)
        return bool(closed) and not rest and self._form.fullmatch(subject + _REQUIRED) is not None


def unknown_patterns(patterns: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the patterns that match no known effect."""
    names = list(known)
    return [each for each in patterns if not any(re.fullmatch(_form(each), name) for name in names)]


def _form(pattern: str) -> str:
    return ".*".join(re.escape(part) for part in pattern.split("*"))
