"""The console put together: what `console/` needs, from the service's own parts."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.routing import BaseRoute
from starlette.types import Receive, Scope

from console.parts import Bounds, Parts, Proof
from console.routes import routes
from console.signing import Signing
from providers.contract import Client
from providers.errors import UnsupportedByProvider
from receipted.commands import Commands
from receipted.console_accounts import accounts_of
from receipted.errors import NotRunning
from receipted.proving import Prover
from receipted.redeeming import redeem_one
from receipted.wiring import Service
from receiver.body import read_body
from receiver.peer import Peer, peer_of
from storage.tables import Payment


class Console:
    """The console of one service: its routes, and the commands behind them while the application runs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._commands: Commands | None = None
        self._clients: Mapping[str, Client] = {}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Whoever waits for something is let go, so that the server can end."""
        self._stopping.set()

    def routes(self) -> list[BaseRoute]:
        """The routes; none where the settings do not enable the console."""
        return routes(self._parts()) if self._service.settings.console.enabled else []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commands may be given within the block, which keeps the providers' clients open."""
        if not self._service.settings.console.enabled:
            yield
            return
        async with self._service.clients() as clients:
            self._commands, self._clients = Commands(self._service, clients), clients
            try:
                yield
            finally:
                self._commands, self._clients = None, {}

    def _parts(self) -> Parts:
        service, settings = self._service, self._service.settings
        return Parts(
            database=service.database,
            clock=service.clock,
            commands=self._given,
            accounts=accounts_of(service),
            prover=Prover(service, Proof),
            asking=_Asking(service, lambda: self._clients),
            redeem=_Redeem(service),
            signing=Signing(signing_keys(service)),
            origin=_origin(settings.service.public_url),
            is_secure=lambda scope: self._peer(scope).is_secure,
            address_of=lambda scope: self._peer(scope).address,
            read_body=self._read_body,
            is_development=settings.service.development,
            bounds=Bounds(
                idle=timedelta(seconds=settings.console.idle_seconds),
                longest=timedelta(seconds=settings.console.longest_seconds),
                attempts=settings.console.attempts_per_name,
                attempts_per_network=settings.console.attempts_per_network,
                attempts_window=timedelta(seconds=settings.console.attempts_window_seconds),
            ),
            stopping=self._stopping,
        )

    def _given(self) -> Commands:
        if self._commands is None:
            raise NotRunning
        return self._commands

    def _peer(self, scope: Scope) -> Peer:
        settings = self._service.settings.service
        return peer_of(scope, settings.trusted_proxies, is_development=settings.development)

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        settings = self._service.settings.service
        return await read_body(scope, receive, at_most=settings.body_limit_bytes, seconds=settings.body_timeout_seconds)


def signing_keys(service: Service) -> Sequence[bytes]:
    """The console's own keys, the signing one last: derived, so that no cookie is ever taken for a token of a URL."""
    secrets = [secret.encode() for _, secret in reversed(service.settings.service.token_secrets())]
    return [hmac.digest(secret, b"receipted.console", "sha256") for secret in secrets]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _Redeem:
    """One rejected delivery, verified again."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self, rejected_id: str, *, reason: str, by: str) -> str:
        return redeem_one(self._service, rejected_id, by=by, reason=reason)


class _Asking:
    """What is asked about a payment, and what may be asked for."""

    def __init__(self, service: Service, clients: Callable[[], Mapping[str, Client]]) -> None:
        self._service, self._clients = service, clients

    def why(self, payment: Payment, now: datetime) -> str | None:
        return self._service.book.why(payment, now) if payment.account in self._service.accounts else None

    def can_cancel(self, payment: Payment) -> bool:
        client = self._clients().get(payment.account)
        if client is None or payment.provider_ref is None:
            return False
        try:
            client.check_cancel(payment.kind)
        except UnsupportedByProvider:
            return False
        return True
