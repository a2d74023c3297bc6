"""Wiring of the web process: routes of API and console, and what both share."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope

from api.application import api_routes
from api.deps import ApiDeps, ApiLimits
from console.application import routes
from console.deps import ConsoleDeps, ConsoleLimits
from console.oidc_client import OidcClient, OidcOptions
from console.signing import ConsoleSigner
from providers.contract import Client
from receipted.wiring import Service
from receiver.errors import NotHttps
from receiver.http import Peer, peer_of, read_body
from service.commands import Commands
from service.errors import NotRunning
from service.permissions import Role
from service.second_factor import KeySealer
from storage.tables import Payment, PaymentPoll


class WebServices:
    """State that API and console share in one process, with the providers' clients."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._commands: Commands | None = None
        self._clients: Mapping[str, Client] = {}
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Release all waiting requests, so that the server can end."""
        self.stopping.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make commands available inside this block, and keep the providers' clients open."""
        settings = self._service.settings
        if not (settings.api.enabled or settings.console.enabled):
            yield
            return
        async with self._service.clients() as clients:
            self._commands, self._clients = self._service.commands(clients), clients
            try:
                yield
            finally:
                self._commands, self._clients = None, {}

    def commands(self) -> Commands:
        """Return the commands of the running application; raises NotRunning."""
        if self._commands is None:
            raise NotRunning
        return self._commands

    def client(self, account: str) -> Client | None:
        """Return the account's client, while the application runs."""
        return self._clients.get(account)

    def peer(self, scope: Scope) -> Peer:
        """Return the sender of the request, with its security."""
        settings = self._service.settings.service
        return peer_of(scope, settings.trusted_proxies, is_development=settings.development)

    def is_secure(self, scope: Scope) -> bool:
        """Return whether the request came over HTTPS."""
        return self.peer(scope).is_secure

    async def read_body(self, scope: Scope, receive: Receive) -> bytes:
        """Read the body, within the same limits as a delivery's."""
        settings = self._service.settings.service
        return await read_body(scope, receive, at_most=settings.body_limit_bytes, seconds=settings.body_timeout_seconds)


def front_route(service: Service, services: WebServices) -> Route:
    """Build the route of `/`: people go to the console, programs get the API's paths.

    It shows what is here, and neither the version nor the merchant.
    """
    settings = service.settings
    paths = {
        **({"api": "/v1", "description": "/openapi.json", "docs": "/docs"} if settings.api.enabled else {}),
        **({"console": "/console/"} if settings.console.enabled else {}),
    }

    async def root_response(request: Request) -> Response:
        if not services.is_secure(request.scope):
            raise NotHttps
        headers = {"cache-control": "no-store", "vary": "accept"}
        if "text/html" in request.headers.get("accept", "").lower():
            for_people = paths.get("console") or paths.get("docs")
            if for_people is not None:
                return RedirectResponse(for_people, 303, headers)
        return JSONResponse({"object": "service", "name": "receipted", **paths}, headers=headers)

    return Route("/", root_response, methods=["GET"])


def rest_routes(service: Service, services: WebServices) -> list[BaseRoute]:
    """Return the API's routes; none where the settings do not enable it."""
    if not service.settings.api.enabled:
        return []
    return api_routes(_api_deps(service, services), public_url=service.settings.service.public_url)


def _api_deps(service: Service, services: WebServices) -> ApiDeps:
    settings = service.settings
    return ApiDeps(
        database=service.database,
        clock=service.work_clock,
        commands=services.commands,
        accounts=service.configured_accounts(),
        lifecycles={
            (provider.name, kind): lifecycle
            for provider in settings.provider_types().values()
            for kind, lifecycle in provider.lifecycles.items()
        },
        prover=service.prover(),
        is_secure=services.is_secure,
        read_body=services.read_body,
        bounds=ApiLimits(settings.api.requests_per_second, settings.api.burst, settings.api.waiting),
        stopping=services.stopping,
    )


def console_routes(service: Service, services: WebServices) -> list[BaseRoute]:
    """Return the console's routes; none where the settings do not enable it."""
    return routes(console_deps(service, services)) if service.settings.console.enabled else []


def console_deps(service: Service, services: WebServices) -> ConsoleDeps:
    """Build the dependencies of the console's pages."""
    settings = service.settings
    return ConsoleDeps(
        database=service.database,
        clock=service.clock,
        commands=services.commands,
        accounts=service.configured_accounts(),
        prover=service.prover(),
        polling=_PollingStatus(service),
        redeemer=service.redeemer(),
        signing=ConsoleSigner(signing_keys(service)),
        sealer=KeySealer([secret.encode() for _, secret in settings.service.token_secrets()]),
        oidc=_oidc_client(service),
        origin=_origin(settings.service.public_url),
        is_secure=services.is_secure,
        address_of=lambda scope: services.peer(scope).address,
        read_body=services.read_body,
        is_development=settings.service.development,
        limits=ConsoleLimits(
            idle_timeout=timedelta(seconds=settings.console.idle_seconds),
            max_age=timedelta(seconds=settings.console.longest_seconds),
            attempts=settings.console.attempts_per_name,
            attempts_per_network=settings.console.attempts_per_network,
            attempts_everywhere=settings.console.attempts_everywhere,
            requires_second_factor=settings.console.require_second_factor,
            attempts_window=timedelta(seconds=settings.console.attempts_window_seconds),
        ),
        stopping=services.stopping,
    )


def _oidc_client(service: Service) -> OidcClient | None:
    oidc, settings = service.settings.oidc, service.settings.service
    if oidc.issuer is None or oidc.client_secret is None:
        return None
    options = OidcOptions(
        issuer=oidc.issuer,
        client_id=oidc.client_id,
        client_secret=oidc.client_secret.reveal(),
        redirect_uri=f"{settings.public_url.rstrip('/')}/console/login/oidc/callback",
        name_claim=oidc.name_claim,
        role_claim=oidc.role_claim,
        roles={
            Role.VIEWER: frozenset(oidc.viewers),
            Role.OPERATOR: frozenset(oidc.operators),
            Role.ADMIN: frozenset(oidc.admins),
        },
        is_development=settings.development,
    )
    return OidcClient(options, service.clock)


def signing_keys(service: Service) -> Sequence[bytes]:
    """Derive the console's own keys, the signing one last.

    Derived, so that no cookie is ever taken for a token of a URL.
    """
    secrets = [secret.encode() for _, secret in reversed(service.settings.service.token_secrets())]
    return [hmac.digest(secret, b"receipted.web_wiring", "sha256") for secret in secrets]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _PollingStatus:
    """Planned polls of payments, and why they are planned."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def why(self, payment: Payment, poll: PaymentPoll, now: datetime) -> str | None:
        return (
            self._service.poll_schedule.explain_next_poll(payment, poll, now)
            if payment.account in self._service.accounts
            else None
        )
