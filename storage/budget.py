"""An account's budget: one row says when the next request may leave, for all processes together."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.engine import Unit
from storage.tables_asking import AccountBudget

#: No queue and no pause is longer (a provider's longest pause is a day): what lies beyond was set by a wrong clock.
_LONGEST = timedelta(days=1, hours=1)

_table = AccountBudget.__table__  # type: ignore[attr-defined]


def reserve(unit: Unit, account: str, now: datetime, interval: timedelta) -> datetime:
    """The instant at which the caller may send one request; no two callers get instants closer than the interval."""
    kept = _row(unit, account, now)
    slot = max([now, *_believable(now, kept.next_free_at, kept.paused_until)])
    unit.execute(update(_table).where(_table.c.account == account).values(next_free_at=slot + interval))
    return slot


def paused_until(unit: Unit, account: str, now: datetime) -> datetime | None:
    """Until when the provider wants no request; may lie in the past. None where it never said so."""
    found: datetime | None = unit.execute(select(_table.c.paused_until).where(_table.c.account == account)).scalar()
    return next(_believable(now, found), None)


def pause(unit: Unit, account: str, now: datetime, until: datetime) -> None:
    """No request is granted before that instant; a longer pause that stands already is kept."""
    kept = _row(unit, account, now)
    unit.execute(
        update(_table)
        .where(_table.c.account == account)
        .values(paused_until=max([until, *_believable(now, kept.paused_until)]))
    )


def _believable(now: datetime, *instants: datetime | None) -> Iterator[datetime]:
    return (at for at in instants if at is not None and at <= now + _LONGEST)


def _row(unit: Unit, account: str, now: datetime) -> AccountBudget:
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    unit.execute(
        dialect.insert(_table).values(account=account, next_free_at=now, paused_until=None).on_conflict_do_nothing()
    )
    query = select(_table).where(_table.c.account == account)
    found = unit.first(AccountBudget, query.with_for_update() if unit.dialect == "postgresql" else query)
    if found is None:
        raise LookupError(account)
    return found
