"""Further names and attempts of a payment, as its row keeps them.

`payment.names` has an entry for each further name. One with a state is an attempt that does not lead; the attempt that
leads is the payment's own columns, and its entry, if it has one, is its name alone.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from statemachine.attempts import Attempt
from statemachine.phases import Phase
from statemachine.sums import SUM_NAMES
from storage.database import wrap_columns
from storage.tables import Payment

#: Instants of an attempt, kept as text.
_INSTANTS: Final = ("state_as_of", "changed_at", "expires_at", "capture_by")

#: What else is an attempt's own, and not its wish's.
_OWN: Final = ("state", "phase", *SUM_NAMES, "stated", "parts", "failure_reason")


def entry_of(payment: Payment, name: str) -> dict[str, Any] | None:
    """Return what is kept under a further name."""
    return next((entry for entry in payment.names or () if entry["name"] == name), None)


def has_name(payment: Payment, name: str) -> bool:
    """Return whether the payment has this name, the first or a further one."""
    return payment.provider_ref == name or entry_of(payment, name) is not None


def add_name(payment: Payment, name: str) -> None:
    """Keep a further name, of which no state is known."""
    _replace(payment, {"name": name})


def attempts_of(payment: Payment) -> list[Attempt]:
    """Return the attempts that do not lead, the first known first."""
    return [
        Attempt(entry["name"], entry["state"], Phase(entry["phase"]))
        for entry in payment.names or ()
        if "state" in entry and entry["name"] != payment.provider_ref
    ]


def as_payment(payment: Payment, name: str) -> Payment:
    """Return a record of the attempt as if it were the payment that its wish is."""
    entry = entry_of(payment, name) or {}
    columns: dict[str, Any] = {column: entry.get(column) for column in _OWN}
    columns["phase"] = entry.get("phase") or Phase.OPEN.value
    columns |= {column: _instant(entry.get(column)) for column in _INSTANTS}
    columns["changed_at"] = columns["changed_at"] or payment.created_at
    return wrap_columns(Payment, {**payment.__dict__, **columns, "provider_ref": name})


def put(payment: Payment, attempt: Payment) -> None:
    """Keep the attempt, given as a payment, under its name."""
    _replace(payment, dict(_entry(attempt)))


def lead_with(payment: Payment, led: Payment, attempt: Payment) -> None:
    """Let the attempt lead, and keep the one that has led as `led` has it.

    The payment's state and phase are left: a transition moves them. `attempt` is as `as_payment` gave it.
    """
    assert attempt.provider_ref is not None  # noqa: S101 - as_payment has named it
    put(payment, led)
    _replace(payment, {"name": attempt.provider_ref})
    payment.provider_ref = attempt.provider_ref
    columns = attempt.__dict__
    for column in (*SUM_NAMES, "stated", "parts", "failure_reason", "state_as_of", "expires_at", "capture_by"):
        setattr(payment, column, columns[column])


def _entry(attempt: Payment) -> Iterator[tuple[str, Any]]:
    columns = attempt.__dict__
    yield "name", attempt.provider_ref
    yield "state", attempt.state
    yield from ((column, columns[column]) for column in _OWN if column != "state" and columns[column] is not None)
    yield from ((column, columns[column].isoformat()) for column in _INSTANTS if columns[column] is not None)


def _replace(payment: Payment, entry: dict[str, Any]) -> None:
    """Put an entry in the place of the one with its name, or at the end."""
    known = {each["name"]: each for each in payment.names or ()}
    known[entry["name"]] = entry
    payment.names = list(known.values())


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
