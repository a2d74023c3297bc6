"""What the API and the console both have of the application: commands while it runs, how a request came, the front."""

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
    """One for both in a process, so that they share the providers' clients."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._commands: Commands | None = None
        self._clients: Mapping[str, Client] = {}
        self.stopping = asyncio.Event()

    def stop(self) -> None:
        """Whoever waits for something is let go, so that the server can end."""
        self.stopping.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commands may be given within the block, which keeps the providers' clients open."""
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
        """Those of the application that runs; raises NotRunning."""
        if self._commands is None:
            raise NotRunning
        return self._commands

    def client(self, account: str) -> Client | None:
        """The account's, while the application runs."""
        return self._clients.get(account)

    def peer(self, scope: Scope) -> Peer:
        """Who sent the request, and whether over HTTPS."""
        settings = self._service.settings.service
        return peer_of(scope, settings.trusted_proxies, is_development=settings.development)

    def is_secure(self, scope: Scope) -> bool:
        """Whether the request came over HTTPS."""
        return self.peer(scope).is_secure

    async def read_body(self, scope: Scope, receive: Receive) -> bytes:
        """The body, which may be as large and as slow as a provider's."""
        settings = self._service.settings.service
        return await read_body(scope, receive, at_most=settings.body_limit_bytes, seconds=settings.body_timeout_seconds)


def front_route(service: Service, edge: Edge) -> Route:
    """The path `/`: people are led to the console, programs are told where what they need is.

    A stranger learns what is here, and nothing of its version or of who uses it.
    """
    settings = service.settings
    places = {
        **({"api": "/v1", "description": "/openapi.json", "docs": "/docs"} if settings.api.enabled else {}),
        **({"console": "/console/"} if settings.console.enabled else {}),
    }

    async def front(request: Request) -> Response:
        if not edge.is_secure(request.scope):
            raise NotHttps
        headers = {"cache-control": "no-store", "vary": "accept"}
        if "text/html" in request.headers.get("accept", "").lower():
            for_people = places.get("console") or places.get("docs")
            if for_people is not None:
                return RedirectResponse(for_people, 303, headers)
        return JSONResponse({"object": "service", "name": "receipted", **places}, headers=headers)

    return Route("/", front, methods=["GET"])
