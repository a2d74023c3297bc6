"""Alternative Payments' account: OAuth tokens, rate limit and error table."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import parse_qs

from sandbox.limits import SlidingWindow, scaled_window
from sandbox.provider import Provider, Stage
from sandbox.times import now
from sandbox.web import ApiError, Call, Reply, json_reply

#: The rows of the error table: HTTP status, code (the provider lists none, so these are ours), message.
ERRORS: dict[int, tuple[str, str]] = {
    400: ("bad_request", "The request is malformed or a required field is missing"),
    401: ("unauthorized", "The access token is missing or expired"),
    403: ("forbidden", "The client credentials are wrong"),
    404: ("not_found", "No such object in this environment"),
    405: ("method_not_allowed", "The method is not allowed here"),
    422: ("validation_exception", "The request breaks a business rule"),
    429: ("too_many_requests", "More than 5 requests per second for this API key"),
    500: ("server_error", "Unexpected internal condition"),
    502: ("bad_gateway", "Bad gateway"),
    503: ("service_unavailable", "Service unavailable"),
    504: ("gateway_timeout", "Gateway timeout"),
}


@dataclass(frozen=True, slots=True)
class _Token:
    client_id: str
    ends_at: datetime


class Account(Provider):
    """Authorisation and refusals; base of the calls."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._own = stage.config.alternative_payments
        self._tokens: dict[str, _Token] = {}
        self._limit = SlidingWindow(*scaled_window(self._own.requests_per_second, 1.0, self.config.speed))

    def refuse(self, status: int, message: str = "", fields: Mapping[str, str] | None = None) -> ApiError:
        """Build the documented error of this status, to be raised."""
        code, text = ERRORS[status]
        error = {"code": code, "message": message or text, "validation_errors": dict(fields or {})}
        return ApiError(json_reply(status, {"error": error} if self._own.error_shape == "nested" else error))

    def trouble(self, call: Call, status: int) -> Reply:
        """Build the error object with this status."""
        return self.refuse(status).reply

    def admit(self, key: str) -> None:
        """Count one call of an API key; 429 above the limit."""
        if not self._limit.admit(key):
            raise self.refuse(429)

    def authorise(self, call: Call) -> None:
        """Require a living access token, then count the call against its API key."""
        if call.is_behind_stage:
            return
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        token = self._tokens.get(value.strip()) if scheme.lower() == "bearer" else None
        if token is None or token.ends_at <= now():
            raise self.refuse(401)
        self.admit(token.client_id)

    def token(self, call: Call) -> Reply:
        """Exchange client credentials for an access token.

        Wrong credentials are 403, another grant 400.
        """
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(value, validate=True) if scheme.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            given = b""
        expected = f"{self._own.client_id}:{self._own.client_secret}".encode()
        if not hmac.compare_digest(given, expected):
            raise self.refuse(403)
        self.admit(self._own.client_id)
        form = parse_qs(call.body.decode("latin-1"))
        if form.get("grant_type") != ["client_credentials"]:
            raise self.refuse(400, "grant_type must be client_credentials")
        text = self.world.hex(self.world.name(self.name, "token", ""), 56, "token")
        seconds = self.config.scaled(self._own.token_seconds)
        self._tokens[text] = _Token(self._own.client_id, now() + timedelta(seconds=seconds))
        return json_reply(200, {"access_token": text, "expires_in": max(1, int(seconds)), "token_type": "bearer"})
