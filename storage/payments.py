"""Payments: lookups and lists.

The worker's statements are in storage/batches.py.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from storage.columns import table_of
from storage.database import Unit
from storage.errors import NotFound
from storage.ids import is_id
from storage.tables import Payment, PaymentName

_table = table_of(Payment)
_names = table_of(PaymentName)


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


def known_names(unit: Unit, payment_ids: Sequence[str]) -> dict[str, set[tuple[str, str, str]]]:
    """Return account, kind and name of all further names of the payments, by payment."""
    found: dict[str, set[tuple[str, str, str]]] = {}
    columns = (_names.c.payment_id, _names.c.account, _names.c.kind, _names.c.name)
    for payment_id, *key in unit.execute(select(*columns).where(_names.c.payment_id.in_(payment_ids))):
        found.setdefault(payment_id, set()).add((key[0], key[1], key[2]))
    return found


def by_name(unit: Unit, account: str, kinds: Sequence[str], name: str) -> Payment | None:
    """Return the account's payment with this further name; None where there is none."""
    where = (_names.c.account == account, _names.c.kind.in_(kinds), _names.c.name == name)
    payment_id = unit.execute(select(_names.c.payment_id).where(*where).limit(1)).scalar()
    return None if payment_id is None else known(unit, payment_id)


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
