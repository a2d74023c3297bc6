"""The merchant's API put together: what `api/` needs, from the service's own parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.routing import BaseRoute
from starlette.types import Receive, Scope

from api.parts import Account, Bounds, Parts, Proof
from api.routes import routes
from receipted.catalogue import PROVIDERS
from receipted.commands import Commands
from receipted.errors import NotRunning
from receipted.proving import Prover
from receipted.wiring import Service
from receiver.body import read_body
from receiver.peer import peer_of


class Rest:
    """The API of one service: its routes, and the commands behind them while the application runs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._commands: Commands | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Whoever waits for events is let go, so that the server can end."""
        self._stopping.set()

    def routes(self) -> list[BaseRoute]:
        """The routes; none where the settings do not enable the API."""
        if not self._service.settings.api.enabled:
            return []
        return routes(self._parts(), public_url=self._service.settings.service.public_url)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commands may be given within the block, which keeps the providers' clients open."""
        if not self._service.settings.api.enabled:
            yield
            return
        async with self._service.clients() as clients:
            self._commands = Commands(self._service, clients)
            try:
                yield
            finally:
                self._commands = None

    def _parts(self) -> Parts:
        service, settings = self._service, self._service.settings
        return Parts(
            database=service.database,
            clock=service.clock,
            commands=self._given,
            accounts={
                name: Account(
                    name=name,
                    provider=account.provider.name,
                    environment=account.settings.environment,
                    webhook_url=f"{settings.service.public_url}/webhooks/{name}",
                    default_kind=account.provider.default_kind,
                    lifecycles=account.provider.lifecycles,
                )
                for name, account in service.accounts.items()
            },
            lifecycles={
                (provider.name, kind): lifecycle
                for provider in PROVIDERS.values()
                for kind, lifecycle in provider.lifecycles.items()
            },
            prover=Prover(service, Proof),
            is_secure=self._is_secure,
            read_body=self._read_body,
            bounds=Bounds(settings.api.requests_per_second, settings.api.burst, settings.api.waiting),
            stopping=self._stopping,
        )

    def _given(self) -> Commands:
        if self._commands is None:
            raise NotRunning
        return self._commands

    def _is_secure(self, scope: Scope) -> bool:
        settings = self._service.settings.service
        return peer_of(scope, settings.trusted_proxies, is_development=settings.development).is_secure

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        settings = self._service.settings.service
        return await read_body(scope, receive, at_most=settings.body_limit_bytes, seconds=settings.body_timeout_seconds)
