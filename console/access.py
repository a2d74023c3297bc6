"""The user of a request, and the permission that each route needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from console.errors import RoleMissing
from console.static_files import PATH as STATIC
from service.permissions import ROLES, Permission, Role, role_for


@dataclass(frozen=True, slots=True)
class Person:
    """User of one request."""

    id: str
    name: str
    role: Role
    session_id: str
    must_change: bool = False  #: an admin set the password; it must be changed before anything else
    must_enrol: bool = False  #: a second factor is required, and must be set up before anything else

    @property
    def is_held_up(self) -> bool:
        """Tell whether there is nothing but the own page yet."""
        return self.must_change or self.must_enrol

    @property
    def permissions(self) -> frozenset[Permission]:
        """Permissions that the role grants."""
        return ROLES[self.role]

    def may(self, permission: Permission | str) -> bool:
        """Return True if the role grants the permission; ValueError for an unknown one."""
        return Permission(permission) in self.permissions


#: Permission that each route needs; None for what is served without a session. HEAD needs what GET needs.
ROUTE_PERMISSIONS: Final[Mapping[str, Permission | None]] = {
    f"GET {STATIC}{{name}}": None,
    "GET /console/login": None,
    "POST /console/login": None,
    "GET /console/login/code": None,
    "POST /console/login/code": None,
    "GET /console/login/oidc": None,
    "GET /console/login/oidc/callback": None,
    "POST /console/logout": Permission.OWN,
    "GET /console/me": Permission.OWN,
    "POST /console/me/password": Permission.OWN,
    "POST /console/me/second-factor": Permission.OWN,
    "POST /console/me/second-factor/confirm": Permission.OWN,
    "POST /console/me/second-factor/recovery": Permission.OWN,
    "POST /console/me/second-factor/remove": Permission.OWN,
    "POST /console/me/sessions/revoke": Permission.OWN,
    "POST /console/me/sessions/{id}/revoke": Permission.OWN,
    "GET /console/": Permission.READ,
    "GET /console/live": Permission.READ,
    "GET /console/accounts": Permission.READ,
    "GET /console/accounts/{name}": Permission.READ,
    "GET /console/money": Permission.READ,
    "GET /console/payments/{id}": Permission.READ,
    "GET /console/payments/{id}/live": Permission.READ,
    "GET /console/payments/{id}/proof": Permission.READ,
    "GET /console/payments/{id}/export": Permission.EXPORT,
    "GET /console/inbox/{id}/body": Permission.BODIES,
    "GET /console/find": Permission.READ,
    "GET /console/tables/": Permission.READ,
    "GET /console/tables/{key}/list": Permission.READ,
    "GET /console/tables/{key}/detail": Permission.READ,  # without the columns that need more
    "GET /console/tables/{key}/export": Permission.EXPORT,
    "POST /console/payments/{id}/refresh": Permission.WRITE,
    "POST /console/payments/{id}/cancel": Permission.WRITE,
    "POST /console/payments/{id}/capture": Permission.WRITE,
    "POST /console/payments/{id}/refund": Permission.WRITE,
    "POST /console/payments/{id}/resolve": Permission.OPERATE,
    "POST /console/inbox/{id}/replay": Permission.OPERATE,
    "POST /console/outbox/{id}/redrive": Permission.OPERATE,
    "POST /console/quarantine/{id}/redeem": Permission.OPERATE,
    "POST /console/tables/inbox/replay": Permission.OPERATE,
    "POST /console/tables/outbox/redrive": Permission.OPERATE,
    "POST /console/tables/quarantine/redeem": Permission.OPERATE,
    "GET /console/people": Permission.ADMIN,
    "POST /console/people": Permission.ADMIN,
    "POST /console/people/{id}/role": Permission.ADMIN,
    "POST /console/people/{id}/disable": Permission.ADMIN,
    "POST /console/people/{id}/enable": Permission.ADMIN,
    "POST /console/people/{id}/logout": Permission.ADMIN,
    "POST /console/people/{id}/password": Permission.ADMIN,
}


class RoutePermissions:
    """Checks the permission that a request's route needs, found as the router does."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        """Index the routes; raises RuntimeError where they differ from those declared."""
        self._routes = routes
        self._names: dict[int, str] = {id(route): name for route, name in named_routes(routes)}
        served = {f"{method} {name}" for route, name in named_routes(routes) for method in _methods(route)}
        if served != set(ROUTE_PERMISSIONS):
            raise RuntimeError(f"routes and declared permissions differ: {sorted(served ^ set(ROUTE_PERMISSIONS))}")

    def check(self, scope: Scope, person: Person | None) -> None:
        """Return for a person who may use the route; raises RoleMissing."""
        route = _found(self._routes, scope)
        if route is None:
            return  # the router answers 404 or 405
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        needed = ROUTE_PERMISSIONS[f"{method} {self._names[id(route)]}"]
        if needed is not None and (person is None or not person.may(needed)):
            role = person.role.value if person is not None else "none"
            words = f"your role is {role}, and this needs {role_for(needed).value}; ask an admin of this console"
            raise RoleMissing(words)


def named_routes(routes: Sequence[BaseRoute]) -> Iterator[tuple[Route, str]]:
    """Yield every route with its path; raises TypeError for another kind of route."""
    for route in routes:
        if not isinstance(route, Route):
            raise TypeError(f"a route of a kind without a permission: {type(route).__name__}")
        yield route, route.path


def _methods(route: Route) -> set[str]:
    return (route.methods or set()) - {"HEAD"}


def _found(routes: Sequence[BaseRoute], scope: Scope) -> Route | None:
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL:
            return route
    return None
