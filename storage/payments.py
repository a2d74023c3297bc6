"""Payments: lookups, lists and the schedule of questions.

The worker's statements are in storage/batches.py.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, case, func, or_, select, update

from storage.bulk import instants
from storage.columns import table_of
from storage.database import Unit
from storage.errors import NotFound
from storage.ids import is_id
from storage.readable import UnreadableRecord
from storage.tables import Payment
from storage.types import CLOCK_WAS_WRONG, PollPriority

_table = table_of(Payment)

_UNREADABLE_WAIT: Final = timedelta(hours=1)

_UNANSWERED: Final = (
    "EXISTS (SELECT 1 FROM payment WHERE account = {some} AND provider_ref IS NULL AND state IS NULL "
    "AND review IS NULL AND created_at < {at})"
)
#: Each is a range of the index.
_DUE: Final = (
    "EXISTS (SELECT 1 FROM payment WHERE account = {some} "  # noqa: S608 - our own names
    f"AND poll_priority IN ({', '.join(str(int(p)) for p in PollPriority)}) "
    "AND next_poll_at IS NOT NULL AND next_poll_at"
)


def get(unit: Unit, payment_id: str, *, lock: bool = False) -> Payment:
    """Return one payment, locked with `lock`; raises NotFound."""
    query = select(_table).where(_table.c.id == payment_id)
    if lock and unit.dialect == "postgresql":
        query = query.with_for_update()
    found = unit.first(Payment, query) if is_id(payment_id) else None
    if found is None:
        raise NotFound(f"no payment {payment_id}", param="payment")
    return found


def has_unbound(unit: Unit, account: str, kinds: Sequence[str], since: datetime) -> bool:
    """Return whether a create call of these kinds may still wait for its answer."""
    query = select(_table.c.id).where(
        _table.c.account == account,
        _table.c.kind.in_(kinds),
        _table.c.provider_ref.is_(None),
        _table.c.state.is_(None),
        _table.c.created_at >= since,
    )
    return unit.execute(query.limit(1)).first() is not None


def ask_at(unit: Unit, payment_ids: Sequence[str], when: datetime, priority: PollPriority) -> int:
    """Move the payments' next question to that instant or sooner.

    Its priority is at least the given one. Returns how many payments moved.
    """
    is_later = or_(_table.c.next_poll_at.is_(None), _table.c.next_poll_at > when)
    done = unit.execute(
        update(_table)
        .where(
            _table.c.id.in_(payment_ids),
            _table.c.provider_ref.is_not(None),
            or_(is_later, _table.c.poll_priority > priority),
        )
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
        select(_table.c.id)
        .where(_table.c.account == account, _table.c.phase.in_(phases), _table.c.next_poll_at > when)
        .order_by(_table.c.id.desc())
        .limit(limit)
    )
    return list(unit.execute(newest).scalars())


def wanted(unit: Unit, account: str, now: datetime, limit: int) -> list[Payment]:
    """Lock payments to ask about now, by priority, then the longest overdue."""
    return _due(unit, account, now, [p for p in PollPriority if p is not PollPriority.SCHEDULE], limit)


def due_by_schedule(unit: Unit, account: str, now: datetime, limit: int) -> list[Payment]:
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


def _due(unit: Unit, account: str, now: datetime, whose: Sequence[PollPriority], limit: int) -> list[Payment]:
    found, aside = list[Payment](), list[UnreadableRecord]()
    for when in _whens(now):
        query = (
            select(_table)
            .where(*_asked_by(account, whose), when, _table.c.provider_ref.is_not(None))
            .order_by(_table.c.poll_priority, _table.c.next_poll_at)
            .limit(limit - len(found))
        )
        if limit > len(found):
            found += unit.all(
                Payment, query.with_for_update(skip_locked=True) if unit.dialect == "postgresql" else query, aside
            )
    _set_aside(unit, aside, now)
    return found


def _set_aside(unit: Unit, unreadable: Sequence[UnreadableRecord], now: datetime) -> None:
    """Delay questions about unreadable payments by an hour."""
    is_sqlite = unit.dialect == "sqlite"
    where = "CAST(id AS BLOB) = CAST(? AS BLOB)" if is_sqlite else "id = %s::uuid"
    mark, when = ("?", "?") if is_sqlite else ("%s", "%s::timestamptz")
    (at,) = instants(unit.dialect, [now + _UNREADABLE_WAIT])
    for each in unreadable:
        unit.run(
            f"UPDATE payment SET next_poll_at = {when}, poll_priority = {int(PollPriority.SCHEDULE)}, "  # noqa: S608
            f"poll_error = {mark} WHERE {where}",
            (at, each.words, each.raw["id"]),
        )


def _asked_by(account: str, whose: Sequence[PollPriority]) -> tuple[ColumnElement[bool], ...]:
    at = _table.c.next_poll_at
    return (_table.c.account == account, _table.c.poll_priority.in_([int(p) for p in whose]), at.is_not(None))


def _whens(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions of what is due, each a range of the index.

    What only a wrong clock can have put off so long is due too.
    """
    return _table.c.next_poll_at <= now, _table.c.next_poll_at > now + CLOCK_WAS_WRONG


def set_next_poll(unit: Unit, payment_id: str, at: datetime | None) -> None:
    """Set when the payment is asked about; None for never."""
    unit.execute(update(_table).where(_table.c.id == payment_id).values(next_poll_at=at))


def set_next_polls(unit: Unit, instants: Mapping[str, datetime]) -> None:
    """Each payment is asked about at its instant."""
    if instants:
        statement = update(_table).where(_table.c.id == bindparam("payment")).values(next_poll_at=bindparam("at"))
        unit.execute(statement, [{"payment": payment_id, "at": at} for payment_id, at in instants.items()])


def note_asked(
    unit: Unit, asked: Payment, next_at: datetime | None, *, seen_at: datetime | None = None, error: str | None = None
) -> None:
    """Count the question, and set the next one, with the answer's time or the error.

    A time that was set since `asked` was read stands: somebody has heard more meanwhile, or wants to know at once.
    """
    is_as_read = _table.c.next_poll_at.is_not_distinct_from(asked.next_poll_at)
    unit.execute(
        update(_table)
        .where(_table.c.id == asked.id)
        .values(
            asked_at=_table.c.asked_at if seen_at is None else seen_at,
            next_poll_at=case((is_as_read, next_at), else_=_table.c.next_poll_at),
            poll_priority=case((is_as_read, int(PollPriority.SCHEDULE)), else_=_table.c.poll_priority),
            polls=_table.c.polls + 1,
            poll_error=error,
            poll_failures=0 if error is None else _table.c.poll_failures + 1,
        )
    )


def unanswered_creates(unit: Unit, account: str, before: datetime, limit: int = 100) -> list[Payment]:
    """Return payments whose create call has left no answer and no review.

    The call was begun before the instant.
    """
    query = (
        select(_table)
        .where(
            _table.c.account == account,
            _table.c.provider_ref.is_(None),
            _table.c.state.is_(None),
            _table.c.review.is_(None),
            _table.c.created_at < before,
        )
        .limit(limit)
    )
    return unit.all(Payment, query, [])  # what cannot be read is noted, and nobody gives it up


def find(
    unit: Unit,
    *,
    account: str | None = None,
    phase: str | None = None,
    state: str | None = None,
    reference: str | None = None,
    in_review: bool = False,
    after: str = "",
    limit: int = 100,
) -> list[Payment]:
    """Payments in order of creation after a given id."""
    query = select(_table).order_by(_table.c.id).limit(limit)
    if after:
        query = query.where(_table.c.id > after)
    wanted: tuple[tuple[Any, Any], ...] = (
        (_table.c.account, account),
        (_table.c.phase, phase),
        (_table.c.state, state),
        (_table.c.reference, reference),
    )
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    if in_review:
        query = query.where(_table.c.review.is_not(None))
    return unit.all(Payment, query)


def known(unit: Unit, payment_id: str) -> Payment | None:
    """One payment; None where there is none."""
    return unit.first(Payment, select(_table).where(_table.c.id == payment_id)) if is_id(payment_id) else None


def named(unit: Unit, account: str, kinds: Sequence[str], refs: Sequence[str]) -> list[Payment]:
    """Return the account's payments with this provider reference; not locked."""
    where = (_table.c.account == account, _table.c.kind.in_(kinds), _table.c.provider_ref.in_(refs))
    return unit.all(Payment, select(_table).where(*where))


def existing(unit: Unit, payment_ids: Sequence[str]) -> set[str]:
    """Return those ids that are payments'.

    What is no id at all, as in a tampered row, is none.
    """
    ids = [payment_id for payment_id in payment_ids if is_id(payment_id)]
    return set(unit.execute(select(_table.c.id).where(_table.c.id.in_(ids))).scalars())


def count_by_phase(unit: Unit) -> dict[tuple[str, str], int]:
    """Count payments by account and phase."""
    rows = unit.execute(
        select(_table.c.account, _table.c.phase, func.count()).group_by(_table.c.account, _table.c.phase)
    )
    return {(row[0], row[1]): row[2] for row in rows}
