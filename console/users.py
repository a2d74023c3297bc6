"""Who sits before the console: a name, a role, a session."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from console.errors import InvalidForm
from service.permissions import ROLES, Permission, Role
from storage.ids import new_id
from storage.tables_support import ConsolePerson

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Person:
    """The person of one request."""

    id: str
    name: str
    role: Role
    session_id: str
    must_change: bool = False  #: the password was given by somebody else, and is to be changed before anything else

    @property
    def permissions(self) -> frozenset[Permission]:
        """Everything that the role grants."""
        return ROLES[self.role]

    def may(self, permission: Permission | str) -> bool:
        """Return True where the role grants the permission; raises ValueError for a name that is none."""
        return Permission(permission) in self.permissions


def new_person(name: str, role: Role, password_hash: str, now: datetime, *, is_temporary: bool) -> ConsolePerson:
    """The record of somebody new."""
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
    """The name as it is kept; raises InvalidForm for one that could be mistaken for another."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        words = "a name has 1 to 64 of the characters a-z, 0-9 and ._@+-, and begins and ends with a letter or digit"
        raise InvalidForm(words, param="name")
    return name
