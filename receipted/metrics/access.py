"""Who may ask for metrics and probes: they are asked for over plain HTTP, and tell how much business there is."""

import hmac
from collections.abc import Sequence
from typing import ClassVar, Final

from starlette.types import Scope

from receiver.errors import NotHttps
from receiver.http import Network, is_inside, peer_of
from statemachine.errors import ServiceError

#: What a proxy adds to a request of somebody else's.
_FORWARDED: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)


class NotInside(ServiceError):
    """This is answered to loopback, and to the networks of service.trusted_proxies and metrics.allowed_networks."""

    type = "authorization_error"
    code = "not_inside"
    status = 403


class WrongToken(ServiceError):
    """The bearer token of metrics.token is missing or wrong."""

    type = "authentication_error"
    code = "wrong_token"
    status = 401
    headers: ClassVar[dict[str, str]] = {"www-authenticate": "Bearer"}


class Access:
    """Decides about one request, by its peer and its token."""

    def __init__(
        self, trusted: Sequence[Network], allowed: Sequence[Network], token: str | None, *, is_development: bool
    ) -> None:
        self._trusted = trusted
        self._inside = (*trusted, *allowed)
        self._token = token.encode() if token is not None else None
        self._is_development = is_development

    def probes(self, scope: Scope) -> None:
        """Return for whoever is inside; raises NotInside. A token makes nobody an insider."""
        if not self._is_inside(scope):
            raise NotInside

    def metrics(self, scope: Scope) -> None:
        """Return for whoever has the token, where there is one, and else for whoever is inside.

        The token is looked at where nobody could read it on its way: inside, or over HTTPS. Raises NotInside,
        NotHttps or WrongToken.
        """
        is_inside = self._is_inside(scope)
        if self._token is None:
            if not is_inside:
                raise NotInside
            return
        if not is_inside and not peer_of(scope, self._trusted, is_development=self._is_development).is_secure:
            raise NotHttps
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not hmac.compare_digest(given[0], b"Bearer " + self._token):
            raise WrongToken

    def _is_inside(self, scope: Scope) -> bool:
        """By the address that asks. A request that a proxy passes on is nobody's who is inside.

        One that passes on what strangers send has an address of ours, and perhaps no setting that says so.
        """
        if not _FORWARDED.isdisjoint(name for name, _ in scope["headers"]):
            return False
        client = scope.get("client")
        return client is not None and is_inside(client[0], self._inside)
