"""The quarantine: rejected deliveries, bounded per account.

A wrong key never loses an event.
"""

from datetime import datetime

from sqlalchemy import delete, func, insert, select

from storage import hashing
from storage.columns import table_of
from storage.database import Unit, values
from storage.errors import NotFound
from storage.ids import is_id, new_id
from storage.tables import RejectedDelivery

_table = table_of(RejectedDelivery)


def keep(unit: Unit, rejected: RejectedDelivery, *, at_most: int) -> None:
    """Insert the rejected delivery, and delete the account's oldest beyond `at_most`."""
    rejected.id = new_id()
    rejected.seal = unit.sealer.seal(hashing.rejected(rejected))
    unit.execute(insert(_table), values(rejected))
    oldest_kept = (
        select(_table.c.id)
        .where(_table.c.account == rejected.account)
        .order_by(_table.c.id.desc())
        .offset(at_most - 1)
        .limit(1)
        .scalar_subquery()
    )
    unit.execute(delete(_table).where(_table.c.account == rejected.account, _table.c.id < oldest_kept))


def find(
    unit: Unit, account: str, *, since: datetime | None = None, after: str = "", limit: int = 100
) -> list[RejectedDelivery]:
    """Return the account's rejected deliveries after a given id, oldest first."""
    query = select(_table).where(_table.c.account == account).order_by(_table.c.id).limit(limit)
    if after:
        query = query.where(_table.c.id > after)
    if since is not None:
        query = query.where(_table.c.received_at >= since)
    return unit.all(RejectedDelivery, query)


def get(unit: Unit, rejected_id: str) -> RejectedDelivery:
    """One rejected delivery; raises NotFound."""
    query = select(_table).where(_table.c.id == rejected_id)
    found = unit.first(RejectedDelivery, query) if is_id(rejected_id) else None
    if found is None:
        raise NotFound(f"no rejected delivery {rejected_id}", param="id")
    return found


def remove(unit: Unit, rejected_id: str) -> None:
    """Delete a delivery that was redeemed."""
    unit.execute(delete(_table).where(_table.c.id == rejected_id))


def count_by_reason(unit: Unit) -> dict[tuple[str, str], int]:
    """Count rejected deliveries by account and reason."""
    rows = unit.execute(
        select(_table.c.account, _table.c.reason, func.count()).group_by(_table.c.account, _table.c.reason)
    )
    return {(row[0], row[1]): row[2] for row in rows}
