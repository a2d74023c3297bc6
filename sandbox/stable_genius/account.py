"""Stable Genius' account: its two keys, the limit of each, and how a call is read."""

import math
from abc import abstractmethod
from typing import Any

from sandbox.limits import FixedWindow, scaled_window
from sandbox.provider import Provider, Stage, read_json
from sandbox.stable_genius.errors import refuse
from sandbox.times import now
from sandbox.web import Call, Reply
from sandbox.world import Resource


class Account(Provider):
    """Authorisation by environment; base of the calls."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._own = stage.config.stable_genius
        speed = self.config.speed
        self._limits = {
            False: FixedWindow(*scaled_window(self._own.test_requests_per_minute, 60.0, speed)),
            True: FixedWindow(*scaled_window(self._own.live_requests_per_minute, 60.0, speed)),
        }

    def trouble(self, call: Call, status: int) -> Reply:
        """Build the error object with this status."""
        if status == 429:
            return self._limited(now().timestamp() + 1)
        return refuse({404: "not_found", 405: "method_not_allowed"}.get(status, f"internal_error_{status}")).reply

    def authorise(self, call: Call) -> bool:
        """Return True for the live key and False for the test key.

        Else the documented 401, or 429 when its limit is used up.
        """
        if call.is_behind_stage:
            return False
        header = call.headers.get("authorization")
        if not header:
            raise refuse("missing_api_key")
        scheme, _, key = header.partition(" ")
        key = key.strip()
        if scheme.lower() == "bearer" and key == self._own.revoked_key:
            raise refuse("revoked_api_key")
        if scheme.lower() != "bearer" or key not in {self._own.test_key, self._own.live_key}:
            raise refuse("invalid_api_key")
        is_live = key == self._own.live_key
        resets_at = self._limits[is_live].admit(key)
        if resets_at is not None:
            error = refuse("rate_limit_exceeded")
            error.reply = self._limited(resets_at)
            raise error
        return is_live

    def _limited(self, resets_at: float) -> Reply:
        seconds = resets_at - now().timestamp() if self._own.reset_as_delta else resets_at
        reply = refuse("rate_limit_exceeded").reply
        return Reply(429, reply.body, {"X-RateLimit-Reset": str(math.ceil(seconds))})

    def read(self, call: Call) -> dict[str, Any]:
        """Parse the JSON object in the body; 400 for others or another content type."""
        if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise refuse("invalid_request", "Content-Type must be application/json")
        return read_json(call, refuse("invalid_request", "The body is not a JSON object").reply)

    @abstractmethod
    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the payment_intent object."""
