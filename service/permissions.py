"""Permissions: what may be seen and done, and what grants it.

Every page, form, export and operation of the API asks this table.

The command line asks nobody: whoever runs it has the settings and the database already.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class Permission(StrEnum):
    """One thing that a person or an API key may be allowed."""

    OWN = "own"  #: one's own password and sessions
    READ = "read"  #: payments, states, money, references, timelines, figures, and what sinks are sent
    BODIES = "bodies"  #: the bytes that others sent, and our own statements as recorded
    HEADERS = "headers"  #: headers of deliveries, and what is quoted from them
    PERSONAL = "personal"  #: network addresses that a delivery came from
    EXPORT = "export"  #: tables and histories as files
    WRITE = "write"  #: create, track, ask the provider, cancel
    OPERATE = "operate"  #: resolve, replay, redrive, redeem
    SETTINGS = "settings"  #: how an account is set up, without any secret
    ADMIN = "admin"  #: people of the console, and API keys


class Role(StrEnum):
    """Role of a person in the console. Each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def allows(self, needed: Permission) -> bool:
        """Return True where the role grants the permission."""
        return needed in ROLES[self]


class KeyScope(StrEnum):
    """Scope of an API key. None implies another."""

    READ = "read"  #: every GET but raw bodies and exports
    WRITE = "write"  #: create, track, refresh, cancel
    OPERATE = "operate"  #: resolve, replay, redrive, raw bodies, exports, addresses of rejected deliveries
    ADMIN = "admin"  #: keys


_VIEWER: Final = frozenset({Permission.OWN, Permission.READ})
_SENSITIVE: Final = frozenset({Permission.BODIES, Permission.HEADERS, Permission.PERSONAL, Permission.EXPORT})
_OPERATOR: Final = _VIEWER | _SENSITIVE | {Permission.WRITE, Permission.OPERATE}

#: What each role of the console grants.
ROLES: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: frozenset(Permission),
}

#: What each scope of an API key grants.
SCOPES: Final[Mapping[KeyScope, frozenset[Permission]]] = {
    KeyScope.READ: frozenset({Permission.READ}),
    KeyScope.WRITE: frozenset({Permission.WRITE}),
    KeyScope.OPERATE: _SENSITIVE | {Permission.OPERATE},
    KeyScope.ADMIN: frozenset({Permission.ADMIN}),
}

#: Columns of rows that need more than READ, whichever table they stand in.
COLUMNS: Final[Mapping[str, Permission]] = {
    "body": Permission.BODIES,
    "headers": Permission.HEADERS,
    "client": Permission.PERSONAL,
}


def role_for(needed: Permission) -> Role:
    """Return the least role that grants the permission."""
    return next(role for role in Role if role.allows(needed))


def scope_for(needed: Permission) -> KeyScope:
    """Return the scope that grants the permission; StopIteration where none does."""
    return next(scope for scope in KeyScope if needed in SCOPES[scope])


def granted(scopes: list[str]) -> frozenset[Permission]:
    """Everything that these scopes of a key grant together."""
    return frozenset().union(*(SCOPES[scope] for scope in KeyScope if scope.value in scopes))


def visible(row: Mapping[str, Any], permissions: frozenset[Permission]) -> dict[str, Any]:
    """Replace each column that the permissions do not cover by None."""
    return {name: value if _may(name, permissions) else None for name, value in row.items()}


def _may(column: str, permissions: frozenset[Permission]) -> bool:
    needed = COLUMNS.get(column)
    return needed is None or needed in permissions
