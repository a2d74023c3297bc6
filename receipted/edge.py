"""Parts that API and console share: commands, peers, bodies, and the path `/`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope

from providers.contract import Client
from receipted.wiring import Service
from receiver.errors import NotHttps
from receiver.http import Peer, peer_of, read_body
from service.commands import Commands
from service.errors import NotRunning


class Edge:
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


def front_route(service: Service, edge: Edge) -> Route:
    """Build the route of `/`: people go to the console, programs get the API's paths.

    It shows what is here, and neither the version nor the merchant.
    """
    settings = service.settings
    paths = {
        **({"api": "/v1", "description": "/openapi.json", "docs": "/docs"} if settings.api.enabled else {}),
        **({"console": "/console/"} if settings.console.enabled else {}),
    }

    async def root_response(request: Request) -> Response:
        if not edge.is_secure(request.scope):
            raise NotHttps
        headers = {"cache-control": "no-store", "vary": "accept"}
        if "text/html" in request.headers.get("accept", "").lower():
            for_people = paths.get("console") or paths.get("docs")
            if for_people is not None:
                return RedirectResponse(for_people, 303, headers)
        return JSONResponse({"object": "service", "name": "receipted", **paths}, headers=headers)

    return Route("/", root_response, methods=["GET"])
