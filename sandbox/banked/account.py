"""Banked's account: who may call, how a call is read, and what its path names."""

import base64
import binascii
import hmac
from abc import abstractmethod
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from sandbox.banked.errors import refuse, row_of
from sandbox.banked.idempotency import Idempotency
from sandbox.provider import Provider, Stage, magic_code, read_json
from sandbox.times import now
from sandbox.web import Call, Handler, Reply, json_reply
from sandbox.world import Resource


class Account(Provider):
    """One business with one key pair; the calls of both versions are made upon it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.own = stage.config.banked
        self._tokens: dict[str, datetime] = {}
        self._idempotency = Idempotency(self.config.scaled)

    def trouble(self, call: Call, status: int) -> Reply:
        """Build the errors array with the row of this status."""
        codes = {404: "not_found", 405: "method_not_allowed", 429: "rate_limit_exceeded", 502: "bad_gateway"}
        codes |= {503: "service_unavailable", 504: "gateway_timeout"}
        return refuse(call, [(codes.get(status, "internal"), "")]).reply

    async def run(self, handler: Handler, call: Call) -> Reply:
        """Authenticate, honour the idempotency key, then answer."""
        if call.path == "/oauth/token":
            return await super().run(handler, call)
        if not self._is_authentic(call):
            return refuse(call, [("unauthorized", "Authorization")]).reply
        if b'"sandbox slow"' in call.body or b'"sandbox:slow"' in call.body:
            call.slow_seconds = max(call.slow_seconds, 1.0)
        answer = super().run
        return await self._idempotency.run(call, lambda: answer(handler, call))

    def _is_own_pair(self, value: str) -> bool:
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.own.key}:{self.own.secret}".encode())

    def _is_authentic(self, call: Call) -> bool:
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return self._is_own_pair(value.strip())
        ends_at = self._tokens.get(value.strip())
        return scheme.lower() == "bearer" and ends_at is not None and ends_at > now()

    def token(self, call: Call) -> Reply:
        """Exchange client credentials for a token.

        401 for wrong ones, 400 for another grant or scope.
        """
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or not self._is_own_pair(value.strip()):
            raise refuse(call, [("unauthorized", "Authorization")])
        form = parse_qs(call.body.decode("latin-1"))
        if form.get("grant_type") != ["client_credentials"]:
            raise refuse(call, [("invalid_request", "grant_type")])
        if form.get("scope") != [self.own.application_id]:
            raise refuse(call, [("invalid_business", "scope")])
        text = self.world.hex(self.world.name(self.name, "token", ""), 64, "token")
        seconds = self.config.scaled(self.own.token_seconds)
        self._tokens[text] = now() + timedelta(seconds=seconds)
        value_out = {"access_token": text, "token_type": "Bearer", "expires_in": max(1, int(seconds))}
        return json_reply(200, value_out)

    def read(self, call: Call) -> dict[str, Any]:
        """Parse the JSON object in the body, else `decoding`."""
        return read_json(call, refuse(call, [("decoding", "body")]).reply)

    def provoke(self, call: Call, reference: object) -> None:
        """Raise the row that a magic reference asks for."""
        code = row_of(magic_code(reference))
        if code:
            raise refuse(call, [(code, "reference")])

    def found(self, call: Call, kind: str, missing: str = "not_found") -> Resource:
        """Return the resource of the path; raises the provider's error."""
        self.provoke(call, call.params["id"])
        resource = self.world.find(self.name, kind, call.params["id"])
        if resource is None or resource.state == "deleted":
            raise refuse(call, [(missing, "id")])
        return resource

    @abstractmethod
    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the object as its own calls show it."""
