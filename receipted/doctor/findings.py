"""One thing that was looked at, and what was found."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  #: deliveries come through, and somebody should look at it
    FAULT = "fault"  #: deliveries are lost, late or refused, or the URL cannot be registered
    SKIPPED = "skipped"  #: could not be looked at


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, of which account, what was found, and what to do about it."""

    check: str
    verdict: Verdict
    says: str
    remedy: str = ""
    account: str | None = None
    code: str | None = None  #: the error that a provider answers a registration of this URL with


def ok(check: str, says: str, account: str | None = None) -> Finding:
    """Nothing is wrong."""
    return Finding(check, Verdict.OK, says, account=account)


def warning(check: str, says: str, remedy: str, account: str | None = None) -> Finding:
    """Somebody should look at it."""
    return Finding(check, Verdict.WARNING, says, remedy, account)


def fault(check: str, says: str, remedy: str, account: str | None = None, code: str | None = None) -> Finding:
    """Deliveries suffer."""
    return Finding(check, Verdict.FAULT, says, remedy, account, code)


def skipped(check: str, says: str, account: str | None = None) -> Finding:
    """It could not be looked at."""
    return Finding(check, Verdict.SKIPPED, says, account=account)
