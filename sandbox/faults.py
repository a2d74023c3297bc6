"""Seeded choices that do not depend on the order of arrival."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Literal

from sandbox.config import Faults

Trouble = Literal["429", "500", "502", "503", "504", "timeout", "slow"]


@dataclass(frozen=True, slots=True)
class EventPlan:
    """Faults of one event on its way to one endpoint."""

    lose: bool
    copies: int  #: 1, or 2 or 3 when duplicated
    delay_seconds: float  #: 0 when not delayed
    hold: bool
    corrupt: bool
    stale_seconds: float  #: how far off the first attempt is stamped; 0 when it is not
    forge: Literal["", "unsigned", "missigned"]
    replay_other_content: bool


@dataclass(frozen=True, slots=True)
class CallPlan:
    """Faults of one API call."""

    trouble: Trouble | None
    is_processed: bool


class Dice:
    """Independent draws from `seed` and a name, never from a shared stream."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.faults = faults
        self._calls: Counter[str] = Counter()

    def draw(self, *name: object) -> Random:
        """Return a generator that belongs to `name` alone."""
        text = "\x1f".join(str(part) for part in (self.seed, *name))
        return Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))  # noqa: S311

    def event(self, name: str) -> EventPlan:
        """Plan the faults of the event called `name`.

        Each fault has its own draw, so one does not shift another.
        """
        faults = self.faults

        def happens(fault: str, probability: float) -> bool:
            return probability > 0 and self.draw("event", fault, name).random() < probability

        detail = self.draw("event", "detail", name)
        copies, delay, stale, unsigned = (
            detail.choice((2, 3)),
            detail.expovariate(1.0) * faults.delay_seconds,
            detail.choice((-86_400.0, 86_400.0)),
            detail.random() < 0.5,
        )
        forged: Literal["unsigned", "missigned"] = "unsigned" if unsigned else "missigned"
        return EventPlan(
            lose=happens("lose", faults.lose),
            copies=copies if happens("duplicate", faults.duplicate) else 1,
            delay_seconds=delay if happens("delay", faults.delay) else 0.0,
            hold=happens("reorder", faults.reorder),
            corrupt=happens("corrupt_signature", faults.corrupt_signature),
            stale_seconds=stale if happens("stale_timestamp", faults.stale_timestamp) else 0.0,
            forge=forged if happens("forge", faults.forge) else "",
            replay_other_content=happens("replay_other_content", faults.replay_other_content),
        )

    def call(self, name: str) -> CallPlan:
        """Plan the faults of the next call called `name`; each repetition is drawn anew."""
        faults = self.faults
        if not (faults.api_429 or faults.api_500 or faults.api_502_503_504 or faults.api_timeout or faults.api_slow):
            return CallPlan(None, is_processed=True)
        self._calls[name] += 1
        rng = self.draw("call", name, self._calls[name])
        rolls = [rng.random() for _ in range(5)]
        gateway: Trouble = rng.choice(("502", "503", "504"))
        half = rng.random() < 0.5
        if rolls[0] < faults.api_429:
            return CallPlan("429", is_processed=False)
        if rolls[1] < faults.api_500:
            return CallPlan("500", is_processed=False)
        if rolls[2] < faults.api_502_503_504:
            return CallPlan(gateway, is_processed=half)
        if rolls[3] < faults.api_timeout:
            return CallPlan("timeout", is_processed=True)
        return CallPlan("slow" if rolls[4] < faults.api_slow else None, is_processed=True)

    def late_money(self, name: str) -> bool:
        """Return whether money will come for the ended resource called `name`."""
        return self.draw("late_money", name).random() < self.faults.late_money
