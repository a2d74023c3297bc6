"""Payments by when they were heard of and are asked about: claims and answers.

The worker's statements are in storage/batches.py.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, bindparam, case, or_, select, update

from storage.bulk import instants
from storage.columns import table_of
from storage.database import Unit, build_record
from storage.errors import UnreadableRow
from storage.tables import Payment, PaymentPoll
from storage.types import CLOCK_WAS_WRONG, PollPriority
from storage.unreadable_rows import UnreadableRecord

_table = table_of(PaymentPoll)
_payment = table_of(Payment)

_UNREADABLE_WAIT: Final = timedelta(hours=1)

_UNANSWERED: Final = (
    "EXISTS (SELECT 1 FROM payment WHERE account = {some} AND provider_ref IS NULL AND state IS NULL "
    "AND review IS NULL AND created_at < {at})"
)
#: Each is a range of the index.
_DUE: Final = (
    "EXISTS (SELECT 1 FROM payment_poll WHERE account = {some} "  # noqa: S608 - our own names
    f"AND poll_priority IN ({', '.join(str(int(p)) for p in PollPriority)}) "
    "AND next_poll_at IS NOT NULL AND next_poll_at"
)

#: Why a payment that has no row here is not asked about.
GONE: Final = "its row of payment_poll is gone"


class PolledPayment(NamedTuple):
    """A payment and when it is asked about."""

    payment: Payment
    poll: PaymentPoll


def begin(payment_id: str, account: str, now: datetime) -> PaymentPoll:
    """Build the row of a payment that nothing is known of yet."""
    return build_record(
        PaymentPoll,
        {
            "payment_id": payment_id,
            "account": account,
            "heard_at": now,
            "statements": 0,
            "seal": "",
            "poll_priority": PollPriority.SCHEDULE.value,
            "polls": 0,
            "poll_failures": 0,
        },
    )


def get(unit: Unit, payment_id: str) -> PaymentPoll:
    """Return the row of one payment; raises UnreadableRow where it is gone."""
    found = unit.first(PaymentPoll, select(_table).where(_table.c.payment_id == payment_id))
    if found is None:
        raise UnreadableRow(f"payment {payment_id} cannot be read: {GONE}")
    return found


def of(unit: Unit, payments: Sequence[Payment]) -> dict[str, PaymentPoll]:
    """Return the rows of payments by their ids, for people to look at.

    Where one is gone or unreadable, `poll_error` says so, and nothing else is known.
    """
    aside: list[UnreadableRecord] = []
    ids = [payment.id for payment in payments]
    rows = unit.all(PaymentPoll, select(_table).where(_table.c.payment_id.in_(ids)), aside)
    found = {poll.payment_id: poll for poll in rows}
    problems = {each.row_id: each.words for each in aside}
    for payment in payments:
        if payment.id not in found:
            poll = found[payment.id] = begin(payment.id, payment.account, payment.changed_at)
            poll.poll_error = problems.get(payment.id, GONE)
    return found


def ask_at(unit: Unit, payment_ids: Sequence[str], when: datetime, priority: PollPriority) -> int:
    """Move the payments' next question to that instant or sooner.

    Its priority is at least the given one. Returns how many payments moved.
    """
    is_later = or_(_table.c.next_poll_at.is_(None), _table.c.next_poll_at > when)
    named = select(_payment.c.id).where(_payment.c.id.in_(payment_ids), _payment.c.provider_ref.is_not(None))
    done = unit.execute(
        update(_table)
        .where(_table.c.payment_id.in_(named), or_(is_later, _table.c.poll_priority > priority))
        .values(
            next_poll_at=case((is_later, when), else_=_table.c.next_poll_at),
            poll_priority=case((_table.c.poll_priority > priority, int(priority)), else_=_table.c.poll_priority),
        )
    )
    return done.rowcount


def newest_asked(unit: Unit, account: str, phases: Sequence[str], when: datetime, limit: int) -> list[str]:
    """Return ids of the account's newest payments of these phases.

    Only those that are asked about later than at the instant.
    """
    newest = (
        select(_payment.c.id)
        .join(_table, _table.c.payment_id == _payment.c.id)
        .where(_payment.c.account == account, _payment.c.phase.in_(phases), _table.c.next_poll_at > when)
        .order_by(_payment.c.id.desc())
        .limit(limit)
    )
    return list(unit.execute(newest).scalars())


def wanted(unit: Unit, account: str, now: datetime, limit: int) -> list[PolledPayment]:
    """Lock payments to ask about now, by priority, then the longest overdue."""
    return _due(unit, account, now, [p for p in PollPriority if p is not PollPriority.SCHEDULE], limit)


def due_by_schedule(unit: Unit, account: str, now: datetime, limit: int) -> list[PolledPayment]:
    """Lock payments whose time to be asked about has come, the longest overdue first."""
    return _due(unit, account, now, [PollPriority.SCHEDULE], limit)


def anything_to_ask(unit: Unit, account: str, now: datetime, before: datetime) -> tuple[bool, bool]:
    """Return whether any payment or unanswered create call is due to be asked about.

    One statement in the driver's own words, since nothing is asked for as often.
    """
    is_sqlite = unit.dialect == "sqlite"
    at, some = ("?", "?") if is_sqlite else ("%s::timestamptz", "%s")
    begun, *whens = instants(unit.dialect, [before, now, now + CLOCK_WAS_WRONG])
    query = f"SELECT {_UNANSWERED}, {_DUE} <= {{at}}) OR {_DUE} > {{at}})".format(at=at, some=some)
    ((is_unanswered, is_due),) = unit.rows(query, [account, begun, account, whens[0], account, whens[1]])
    return bool(is_unanswered), bool(is_due)


def _due(unit: Unit, account: str, now: datetime, whose: Sequence[PollPriority], limit: int) -> list[PolledPayment]:
    found, aside = list[PolledPayment](), list[UnreadableRecord]()
    for when in _whens(now):
        query = (
            select(_table)
            .join(_payment, _payment.c.id == _table.c.payment_id)
            .where(*_asked_by(account, whose), when, _payment.c.provider_ref.is_not(None))
            .order_by(_table.c.poll_priority, _table.c.next_poll_at)
            .limit(limit - len(found))
        )
        if limit > len(found):
            locked = query.with_for_update(skip_locked=True) if unit.dialect == "postgresql" else query  # both rows
            polls = unit.all(PaymentPoll, locked, aside)
            named = select(_payment).where(_payment.c.id.in_([poll.payment_id for poll in polls]))
            payments = {payment.id: payment for payment in unit.all(Payment, named, aside)}
            found += [PolledPayment(payments[p.payment_id], p) for p in polls if p.payment_id in payments]
    _set_aside(unit, aside, now)
    return found


def _set_aside(unit: Unit, unreadable: Sequence[UnreadableRecord], now: datetime) -> None:
    """Delay questions about unreadable payments by an hour."""
    is_sqlite = unit.dialect == "sqlite"
    where = "CAST(payment_id AS BLOB) = CAST(? AS BLOB)" if is_sqlite else "payment_id = %s::uuid"
    mark, when = ("?", "?") if is_sqlite else ("%s", "%s::timestamptz")
    (at,) = instants(unit.dialect, [now + _UNREADABLE_WAIT])
    for each in unreadable:
        unit.run(
            f"UPDATE payment_poll SET next_poll_at = {when}, poll_priority = {int(PollPriority.SCHEDULE)}, "  # noqa: S608
            f"poll_error = {mark} WHERE {where}",
            (at, each.words, each.raw["id" if each.table == _payment.name else "payment_id"]),
        )


def _asked_by(account: str, whose: Sequence[PollPriority]) -> tuple[ColumnElement[bool], ...]:
    at = _table.c.next_poll_at
    return (_table.c.account == account, _table.c.poll_priority.in_([int(p) for p in whose]), at.is_not(None))


def _whens(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions of what is due, each a range of the index.

    What only a wrong clock can have put off so long is due too.
    """
    return _table.c.next_poll_at <= now, _table.c.next_poll_at > now + CLOCK_WAS_WRONG


def set_next(unit: Unit, payment_id: str, at: datetime | None) -> None:
    """Set when the payment is asked about; None for never."""
    unit.execute(update(_table).where(_table.c.payment_id == payment_id).values(next_poll_at=at))


def set_next_of(unit: Unit, at_of: Mapping[str, datetime]) -> None:
    """Each payment is asked about at its instant."""
    if at_of:
        statement = update(_table).where(_table.c.payment_id == bindparam("payment"))
        rows: list[dict[str, Any]] = [{"payment": payment_id, "at": at} for payment_id, at in at_of.items()]
        unit.execute(statement.values(next_poll_at=bindparam("at")), rows)


def note_asked(
    unit: Unit,
    asked: PaymentPoll,
    next_at: datetime | None,
    *,
    seen_at: datetime | None = None,
    error: str | None = None,
) -> None:
    """Count the question, and set the next one, with the answer's time or the error.

    A time that was set since `asked` was read stands: somebody has heard more meanwhile, or wants to know at once.
    """
    is_as_read = _table.c.next_poll_at.is_not_distinct_from(asked.next_poll_at)
    unit.execute(
        update(_table)
        .where(_table.c.payment_id == asked.payment_id)
        .values(
            asked_at=_table.c.asked_at if seen_at is None else seen_at,
            next_poll_at=case((is_as_read, next_at), else_=_table.c.next_poll_at),
            poll_priority=case((is_as_read, int(PollPriority.SCHEDULE)), else_=_table.c.poll_priority),
            polls=_table.c.polls + 1,
            poll_error=error,
            poll_failures=0 if error is None else _table.c.poll_failures + 1,
        )
    )


def note_answered(unit: Unit, payment_id: str, asked_at: datetime) -> None:
    """Keep the time of an answer that was asked for elsewhere."""
    is_later = or_(_table.c.asked_at.is_(None), _table.c.asked_at < asked_at)
    unit.execute(update(_table).where(_table.c.payment_id == payment_id, is_later).values(asked_at=asked_at))
