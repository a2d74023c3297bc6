"""Keys of the merchant's API: found by digest, rotated with an overlap, revoked."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import insert, or_, select, update

from storage.columns import table_of
from storage.database import Unit, values
from storage.errors import NotFound
from storage.ids import is_id
from storage.tables_support import ApiKey

_table = table_of(ApiKey)

#: `last_used_at` is written at most this often.
USED_AT_INTERVAL: Final = timedelta(minutes=1)


def add(unit: Unit, key: ApiKey) -> None:
    """Insert the key; IntegrityError where its digest is taken."""
    unit.execute(insert(_table), values(key))


def by_digest(unit: Unit, digest: str) -> ApiKey | None:
    """Find the key by its digest, valid or not."""
    return unit.first(ApiKey, select(_table).where(_table.c.digest == digest))


def get(unit: Unit, key_id: str) -> ApiKey:
    """One key; raises NotFound."""
    found = unit.first(ApiKey, select(_table).where(_table.c.id == key_id)) if is_id(key_id) else None
    if found is None:
        raise NotFound(f"no API key {key_id}", param="id")
    return found


def find(unit: Unit, *, environments: Sequence[str] = ()) -> list[ApiKey]:
    """Every key, of these environments or of all, in order of creation."""
    query = select(_table).order_by(_table.c.id)
    return unit.all(ApiKey, query.where(_table.c.environment.in_(environments)) if environments else query)


def is_good(key: ApiKey, now: datetime) -> bool:
    """Return whether the key is valid at that instant."""
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def revoke(unit: Unit, key_id: str, now: datetime) -> ApiKey:
    """Revoke the key; a repeat keeps the first instant. Raises NotFound."""
    get(unit, key_id)
    unit.execute(update(_table).where(_table.c.id == key_id, _table.c.revoked_at.is_(None)).values(revoked_at=now))
    return get(unit, key_id)


def replace(unit: Unit, key_id: str, by: ApiKey, until: datetime) -> ApiKey:
    """Insert the new key; the old one ends at that instant, or sooner if it would."""
    old = get(unit, key_id)
    add(unit, by)
    ends_at = until if old.expires_at is None else min(until, old.expires_at)
    unit.execute(update(_table).where(_table.c.id == key_id).values(replaced_by=by.id, expires_at=ends_at))
    return get(unit, key_id)


def is_use_due(key: ApiKey, now: datetime) -> bool:
    """Return whether the last recorded use is old enough to write another."""
    return key.last_used_at is None or not key.last_used_at <= now < key.last_used_at + USED_AT_INTERVAL


def note_use(unit: Unit, key_id: str, now: datetime) -> None:
    """Record that the key is used now; of several processes, one writes it."""
    is_older = or_(_table.c.last_used_at.is_(None), _table.c.last_used_at <= now - USED_AT_INTERVAL)
    unit.execute(update(_table).where(_table.c.id == key_id, is_older).values(last_used_at=now))
