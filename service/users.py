"""People who may use the console: their names, and the record of a new one."""

import re
from datetime import datetime
from typing import Final

from service.errors import UnusableName
from service.permissions import Role
from storage.ids import new_id
from storage.tables_support import ConsolePerson

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?", re.ASCII)


def new_person(name: str, role: Role, password_hash: str, now: datetime, *, is_temporary: bool) -> ConsolePerson:
    """Make the record of a new person."""
    return ConsolePerson(
        id=new_id(),
        name=name,
        role=role.value,
        password_hash=password_hash,
        created_at=now,
        password_changed_at=now,
        is_temporary=is_temporary,
    )


def name_of(text: str) -> str:
    """Return the name as it is kept; raises UnusableName for one easily mistaken."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        words = "a name has 1 to 64 of the characters a-z, 0-9 and ._@+-, and begins and ends with a letter or digit"
        raise UnusableName(words, param="name")
    return name
