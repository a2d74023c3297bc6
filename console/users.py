"""Who sits before the console: a name, a role, a session."""

from dataclasses import dataclass

from service.permissions import ROLES, Permission, Role


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
