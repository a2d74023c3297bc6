"""Console users: found by name, disabled but never deleted.

Recorded actions name them.
"""

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.columns import table_of
from storage.database import Unit, values
from storage.errors import NotFound, PersonExists
from storage.ids import is_id
from storage.tables_support import ConsolePerson

_table = table_of(ConsolePerson)


def add(unit: Unit, person: ConsolePerson) -> None:
    """Insert the user; raises PersonExists where the name is taken."""
    try:
        unit.execute(insert(_table), values(person))
    except IntegrityError:
        raise PersonExists(f"there is a person {person.name!r} already", param="name") from None


def by_name(unit: Unit, name: str) -> ConsolePerson | None:
    """Find the user of that name, disabled or not."""
    if "\0" in name:  # PostgreSQL has no text with one, and refuses to compare with it
        return None
    return unit.first(ConsolePerson, select(_table).where(_table.c.name == name))


def by_subject(unit: Unit, subject: str) -> ConsolePerson | None:
    """Find the user whom an OpenID Connect provider names so, disabled or not."""
    return unit.first(ConsolePerson, select(_table).where(_table.c.oidc_subject == subject))


def get(unit: Unit, person_id: str) -> ConsolePerson:
    """One person; raises NotFound."""
    found = unit.first(ConsolePerson, select(_table).where(_table.c.id == person_id)) if is_id(person_id) else None
    if found is None:
        raise NotFound(f"no person {person_id}", param="person")
    return found


def find(unit: Unit) -> list[ConsolePerson]:
    """Everybody, by name."""
    return unit.all(ConsolePerson, select(_table).order_by(_table.c.name))


def change_password(unit: Unit, person_id: str, password_hash: str, now: datetime, *, is_temporary: bool) -> None:
    """Set the password hash; a temporary password allows its change alone."""
    unit.execute(
        update(_table)
        .where(_table.c.id == person_id)
        .values(password_hash=password_hash, password_changed_at=now, is_temporary=is_temporary)
    )


def rehash(unit: Unit, person_id: str, old_hash: str, new_hash: str) -> None:
    """Store the same password under a stronger hash, unless it was changed meanwhile."""
    unit.execute(
        update(_table)
        .where(_table.c.id == person_id, _table.c.password_hash == old_hash)
        .values(password_hash=new_hash)
    )


def change_role(unit: Unit, person_id: str, role: str) -> None:
    """Set the role, from the next request on."""
    unit.execute(update(_table).where(_table.c.id == person_id).values(role=role))


def disable(unit: Unit, person_id: str, now: datetime) -> None:
    """Disable the user; a repeat keeps the first instant."""
    unit.execute(update(_table).where(_table.c.id == person_id, _table.c.disabled_at.is_(None)).values(disabled_at=now))


def enable(unit: Unit, person_id: str) -> None:
    """Let the user log in again."""
    unit.execute(update(_table).where(_table.c.id == person_id).values(disabled_at=None))


def others_with_role(unit: Unit, role: str, person_id: str) -> int:
    """Count the other enabled users with the role; locks their rows on PostgreSQL."""
    query = select(_table.c.id).where(_table.c.role == role, _table.c.disabled_at.is_(None)).order_by(_table.c.id)
    found = [row[0] for row in unit.execute(query.with_for_update())]
    return sum(other != person_id for other in found)
