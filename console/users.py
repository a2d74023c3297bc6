"""Users of the console: name, role and session."""

from dataclasses import dataclass

from service.permissions import ROLES, Permission, Role


@dataclass(frozen=True, slots=True)
class Person:
    """User of one request."""

    id: str
    name: str
    role: Role
    session_id: str
    must_change: bool = False  #: an admin set the password; it must be changed before anything else

    @property
    def permissions(self) -> frozenset[Permission]:
        """Permissions that the role grants."""
        return ROLES[self.role]

    def may(self, permission: Permission | str) -> bool:
        """Return True if the role grants the permission; ValueError for an unknown one."""
        return Permission(permission) in self.permissions
