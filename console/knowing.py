"""Whether somebody knows a person's password, and how often that may be tried."""

from datetime import datetime
from hashlib import sha256

from console.errors import TooManyLogins
from console.parts import Parts
from console.passwords import LONGEST, NOBODYS, is_password
from storage import console_attempts
from storage.engine import Unit
from storage.tables_console import ConsolePerson


async def verified(parts: Parts, person: ConsolePerson | None, password: str) -> bool:
    """Whether it is the person's password, and they may log in; for nobody it is checked all the same."""
    may = person is not None and person.disabled_at is None
    kept = person.password_hash if person is not None else NOBODYS
    is_right = await parts.passwords.do(lambda: is_password(password[: LONGEST + 1], kept))
    return is_right and may


async def count(parts: Parts, name: str, network: str) -> None:
    """One try more is counted before the password is looked at, in every process; raises TooManyLogins.

    A name that nobody has is counted like any other, and so is one that is locked out: neither can be told apart.
    """
    now, bounds = parts.clock(), parts.bounds

    def take(unit: Unit) -> TooManyLogins | None:
        for subject, at_most in (
            (_subject("network", network), bounds.attempts_per_network),
            (_subject("name", name), bounds.attempts),
        ):
            wait = console_attempts.take(unit, subject, now, at_most=at_most, window=bounds.attempts_window)
            if wait is not None:
                return TooManyLogins(wait)  # what was counted until here is kept
        console_attempts.forget_before(unit, _long_ago(now, parts))
        return None

    refused = await parts.write(take)
    if refused is not None:
        raise refused


def succeeded(unit: Unit, name: str, network: str) -> None:
    """The tries with this name are forgotten, and the last does not count for the network."""
    console_attempts.forget(unit, _subject("name", name))
    console_attempts.give_back(unit, _subject("network", network))


def _long_ago(now: datetime, parts: Parts) -> datetime:
    return now - 10 * parts.bounds.attempts_window


def _subject(kind: str, value: str) -> str:
    """What is kept of a name: whoever mistypes may have typed a password there."""
    return sha256(f"{kind}:{value}".encode()).hexdigest()
