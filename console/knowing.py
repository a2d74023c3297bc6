"""Whether somebody knows a person's password, and how often that may be tried."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from console.errors import TooManyLogins
from console.parts import ConsoleLimits, Parts
from console.passwords import LONGEST, NOBODYS, is_password
from storage import console_sessions
from storage.database import Unit
from storage.tables_support import ConsolePerson


async def verified(parts: Parts, person: ConsolePerson | None, password: str) -> bool:
    """Whether it is the person's password, and they may log in; for nobody it is checked all the same."""
    may = person is not None and person.disabled_at is None
    kept = person.password_hash if person is not None else NOBODYS
    is_right = await parts.passwords.do(lambda: is_password(password[: LONGEST + 1], kept))
    return is_right and may


class Counted(NamedTuple):
    """One of the counts that a try falls under."""

    subject: str
    at_most: int
    is_own: bool  #: of this name from here alone, so that the right password forgets all of it


@dataclass(frozen=True, slots=True)
class Try:
    """Who tries a password: with which name, from which network, and in a browser where the name has proved itself.

    Strangers share what they may try of a name, and use it up for each other and for its person. A browser that is
    known by its session, or by the cookie of an earlier log-in, is counted by itself: nobody else can keep it out.
    """

    name: str
    network: str
    browser: str | None = None  #: a secret of its own that was signed here for this name, or its session's id

    def counted(self, bounds: ConsoleLimits) -> Iterator[Counted]:
        """Under what it is counted, always in this order, so that no two wait for each other's rows."""
        if self.browser is not None:
            yield Counted(_subject("browser", self.browser), bounds.attempts, is_own=True)
            return
        yield Counted(_subject("network", self.network), bounds.attempts_per_network, is_own=False)
        yield Counted(_subject("here", f"{self.network} {self.name}"), bounds.attempts, is_own=True)
        yield Counted(_subject("name", self.name), bounds.attempts_everywhere, is_own=False)


async def count(parts: Parts, tried: Try) -> None:
    """One try more is counted before the password is looked at, in every process; raises TooManyLogins.

    A name that nobody has is counted like any other, and so is one that is locked out: neither can be told apart.
    """
    now, bounds = parts.clock(), parts.bounds

    def take(unit: Unit) -> TooManyLogins | None:
        for each in tried.counted(bounds):
            wait = console_sessions.take(unit, each.subject, now, at_most=each.at_most, window=bounds.attempts_window)
            if wait is not None:
                return TooManyLogins(wait)  # what was counted until here is kept
        console_sessions.forget_before(unit, _long_ago(now, parts))
        return None

    refused = await parts.write(take)
    if refused is not None:
        raise refused


def succeeded(unit: Unit, tried: Try, bounds: ConsoleLimits) -> None:
    """The tries of this name from here are forgotten; among those of the network, and of all strangers, the last is."""
    for each in tried.counted(bounds):
        (console_sessions.forget if each.is_own else console_sessions.give_back)(unit, each.subject)


def _long_ago(now: datetime, parts: Parts) -> datetime:
    return now - 10 * parts.bounds.attempts_window


def _subject(kind: str, value: str) -> str:
    """What is kept of a name: whoever mistypes may have typed a password there."""
    return sha256(f"{kind}:{value}".encode()).hexdigest()
