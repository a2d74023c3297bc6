"""`/_control`: the true states and the controls, for callers on this machine only."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.payers import PayerSimulation
from sandbox.provider import Provider, Stage
from sandbox.urls import is_acceptable, is_loopback
from sandbox.world import IllegalMove, Resource

Answer = Callable[[Request], Awaitable[Response]]


class Control:
    """Control API in JSON.

    403 for callers from elsewhere, 400 for what cannot be read, 409 for an illegal act.
    """

    def __init__(self, stage: Stage, providers: dict[str, Provider], payers: PayerSimulation) -> None:
        self._stage, self._providers, self._payers = stage, providers, payers

    def routes(self) -> list[Route]:
        """Every control call."""
        return [
            Route("/_control/truth", self._guarded(self.truth), methods=["GET"]),
            Route("/_control/create", self._guarded(self.create), methods=["POST"]),
            Route("/_control/act", self._guarded(self.act), methods=["POST"]),
            Route("/_control/faults", self._guarded(self.faults), methods=["GET", "PUT"]),
            Route("/_control/webhook", self._guarded(self.webhook), methods=["PUT"]),
            Route("/_control/counts", self._guarded(self.counts), methods=["GET"]),
            Route("/_control/idle", self._guarded(self.idle), methods=["GET"]),
            Route("/_control/deliveries", self._guarded(self.deliveries), methods=["GET"]),
        ]

    def _guarded(self, answer: Answer) -> Answer:
        async def guarded(request: Request) -> Response:
            if request.client is None or not is_loopback(request.client.host):
                return _refusal(403, "control is for callers on this machine")
            # A form on some web page can post to loopback, but not with this content type.
            if request.method != "GET" and "application/json" not in request.headers.get("content-type", ""):
                return _refusal(400, "send application/json")
            return await answer(request)

        return guarded

    async def truth(self, request: Request) -> Response:
        """Every resource with its history."""
        return JSONResponse(self._stage.world.truth())

    async def create(self, request: Request) -> Response:
        """Create payments as the merchant's other systems would; stop at a refused one.

        No credentials, limit or fault applies.
        """
        body = await _object(request)
        if body is None or not isinstance(body.get("bodies"), list):
            return _refusal(400, "send {provider, kind, bodies}")
        provider, kind = self._providers.get(str(body.get("provider"))), str(body.get("kind"))
        if provider is None or kind not in provider.create_paths:
            return _refusal(404, "no such provider, or nothing of this kind is created there")
        made: list[Resource] = []
        self._stage.world.on_created.append(made.append)
        try:
            for each in body["bodies"]:
                reply = provider.create_behind_stage(kind, each)
                if reply.status >= 400:
                    return _refusal(409, f"refused with {reply.status}: {reply.body.decode()}")
        finally:
            self._stage.world.on_created.remove(made.append)
        return JSONResponse({"refs": [resource.ref for resource in made]})

    async def act(self, request: Request) -> Response:
        """Move a resource as a payer, the merchant's staff or time would."""
        body = await _object(request)
        if body is None:
            return _refusal(400, "send {provider, kind, ref, action}")
        provider = self._providers.get(str(body.get("provider")))
        names = (str(body.get("provider")), str(body.get("kind")), str(body.get("ref")))
        resource = self._stage.world.find(*names)
        if provider is None or resource is None:
            return _refusal(404, "no such resource")
        try:
            provider.act(resource, str(body.get("action")), body)
        except IllegalMove as error:
            return _refusal(409, str(error))
        return JSONResponse({"state": resource.state})

    async def faults(self, request: Request) -> Response:
        """Return the faults; PUT changes those that it names and leaves the rest."""
        if request.method == "PUT":
            body = await _object(request)
            if body is None:
                return _refusal(400, "send an object of faults")
            try:
                self._stage.dice.faults = self._stage.dice.faults.changed(body)
            except ValueError as error:
                return _refusal(400, str(error))
        return JSONResponse(asdict(self._stage.dice.faults))

    async def webhook(self, request: Request) -> Response:
        """Register a webhook as a person would in the provider's dashboard."""
        body = await _object(request)
        if body is None or not isinstance(body.get("url"), str):
            return _refusal(400, "send {provider, url, kind?, secret?}")
        provider = self._providers.get(str(body.get("provider")))
        if provider is None:
            return _refusal(404, "no such provider")
        if not is_acceptable(body["url"], allow_loopback_http=self._stage.config.allow_loopback_http):
            return _refusal(400, "url must be HTTPS")
        secret = body.get("secret")
        provider.register(body["url"], str(body.get("kind") or ""), None if secret is None else str(secret))
        return JSONResponse({"registered": body["url"]})

    async def counts(self, request: Request) -> Response:
        """Return the counts of everything that has happened so far."""
        return JSONResponse(self._stage.counts.report())

    async def idle(self, request: Request) -> Response:
        """Return the deliveries and payer steps that are still to come."""
        return JSONResponse(
            {"pending_deliveries": self._stage.deliveries.pending, "pending_payers": self._payers.pending}
        )

    async def deliveries(self, request: Request) -> Response:
        """Return the journal of the last ten thousand deliveries, oldest first."""
        return JSONResponse(list(self._stage.deliveries.journal))


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


async def _object(request: Request) -> dict[str, Any] | None:
    try:
        value = json.loads(await request.body())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
