"""Middleware of every request: id, HTTPS, HEAD, and headers of the answer."""

from collections.abc import Callable
from typing import Any

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import PlainHttpRefused
from api.responses import refuse
from storage.ids import new_id

log = structlog.get_logger()


class RequestMiddleware:
    """Gives each request an id, and each answer its headers.

    Refuses requests without HTTPS, and serves HEAD as GET without a body. It is a plain ASGI application, so that
    streams pass through as they come.
    """

    def __init__(self, app: ASGIApp, is_secure: Callable[[Scope], bool]) -> None:
        self._app, self._is_secure = app, is_secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every answer has its request id, and is never stored."""
        if scope["type"] != "http":
            return
        is_head = scope["method"] == "HEAD"
        headers: dict[str, str] = {"x-request-id": new_id(), "cache-control": "no-store"}
        state: dict[str, Any] = {
            **scope.get("state", {}),
            "request_id": headers["x-request-id"],
            "headers": headers,
            "is_head": is_head,
        }
        scope = {**scope, "method": "GET" if is_head else scope["method"], "state": state}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
                ]
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if not self._is_secure(scope):
            await refuse(Request(scope), PlainHttpRefused())(scope, receive, answer)
            return
        try:
            await self._app(scope, receive, answer)
        except Exception:
            if state.get("is_failed"):
                return  # it is logged and answered
            log.exception("request.failed", request_id=state["request_id"])
            raise
