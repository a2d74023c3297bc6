"""HTTP front of a provider: routing, API faults and counting.

The providers' code knows no framework.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from sandbox.counts import Counts
from sandbox.faults import CallPlan, Dice

BODY_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def json_reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """`value` as compact UTF-8 JSON."""
    return Reply(status, to_json(value), headers or {})


def to_json(value: Any) -> bytes:
    """Compact UTF-8 JSON; the bytes that are signed are the bytes that are sent."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class ApiError(Exception):
    """The call is refused with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(slots=True)
class Call:
    """One API request, read completely."""

    method: str
    path: str
    headers: Headers
    query: QueryParams
    body: bytes
    is_too_large: bool = False
    slow_seconds: float = 0.0  #: how long the provider is to wait before it processes the call
    is_behind_stage: bool = False  #: made by the control: no credentials are asked for, and no limit counts it
    params: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Awaitable[Reply] | Reply]


class Front(Protocol):
    """Interface of a provider to its HTTP front."""

    @property
    def name(self) -> str:
        """Name in the counts."""

    @property
    def prefix(self) -> str:
        """The path below which it answers."""

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return method, path template and handler of every call."""

    def trouble(self, call: Call, status: int) -> Reply:
        """Build the provider's own answer for 404, 405, 429 and 5xx."""

    async def run(self, handler: Handler, call: Call) -> Reply:
        """Wait `call.slow_seconds`, then answer; a hook for all calls of a provider."""


async def answer(handler: Handler, call: Call) -> Reply:
    """Return the handler's reply, or that of the ApiError that it raised."""
    try:
        result = handler(call)
        return result if isinstance(result, Reply) else await result
    except ApiError as error:
        return error.reply


class ProviderApp:
    """An ASGI application that plays one provider."""

    def __init__(self, front: Front, dice: Dice, counts: Counts, closing: asyncio.Event) -> None:
        self._front, self._dice, self._counts, self._closing = front, dice, counts, closing
        self._routes = [
            (method, [part for part in path.split("/") if part], handler) for method, path, handler in front.routes()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; API faults are decided by what is asked, not by when."""
        call = await read_call(scope, receive, self._front.prefix)
        name = "\x1f".join((self._front.name, call.method, call.path, hashlib.sha256(call.body).hexdigest()[:16]))
        plan = self._dice.call(name)
        reply = await self._reply(call, plan)
        if plan.trouble == "timeout":
            self._counts.request(self._front.name, "timeout")
            await self._withhold(receive)
            reply = self._front.trouble(call, 504)
        else:
            self._counts.request(self._front.name, str(reply.status))
        await send_reply(send, reply)

    async def _reply(self, call: Call, plan: CallPlan) -> Reply:
        front, faults = self._front, self._dice.faults
        if plan.trouble == "429" and front.trouble(call, 429).status != 429:
            plan = CallPlan(None, is_processed=True)
        if plan.trouble == "slow":
            call.slow_seconds = faults.api_slow_seconds
        if not plan.is_processed and plan.trouble:
            return front.trouble(call, int(plan.trouble))
        handler = self._match(call)
        reply = front.trouble(call, handler) if isinstance(handler, int) else await front.run(handler, call)
        if plan.trouble and plan.trouble.isdigit():
            return front.trouble(call, int(plan.trouble))
        return reply

    def _match(self, call: Call) -> Handler | int:
        parts = [part for part in call.path.split("/") if part]
        is_known = False
        for method, template, handler in self._routes:
            if len(template) != len(parts):
                continue
            if all(want == got or want.startswith("{") for want, got in zip(template, parts, strict=True)):
                is_known = True
                if method == call.method:
                    call.params = {
                        want[1:-1]: unquote(got)
                        for want, got in zip(template, parts, strict=True)
                        if want.startswith("{")
                    }
                    return handler
        return 405 if is_known else 404

    async def _withhold(self, receive: Receive) -> None:
        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        waits = [asyncio.ensure_future(gone()), asyncio.ensure_future(self._closing.wait())]
        await asyncio.wait(waits, timeout=self._dice.faults.api_timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def read_call(scope: Scope, receive: Receive, prefix: str) -> Call:
    """Read the whole request below `prefix`.

    Path segments stay percent-encoded so that an id may hold a slash.
    """
    chunks: list[bytes] = []
    size, is_too_large, more = 0, False, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        more = message.get("more_body", False)
        chunk = message.get("body", b"")
        size += len(chunk)
        is_too_large = size > BODY_LIMIT
        if not is_too_large:
            chunks.append(chunk)
    raw = scope.get("raw_path") or scope["path"].encode()
    return Call(
        method=scope["method"],
        path=raw.decode("latin-1").removeprefix(prefix) or "/",
        headers=Headers(scope=scope),
        query=QueryParams(scope["query_string"]),
        body=b"".join(chunks),
        is_too_large=is_too_large,
    )


async def send_reply(send: Send, reply: Reply) -> None:
    """Write the reply to the wire."""
    headers = [(b"content-length", str(len(reply.body)).encode())]
    if reply.body:
        headers.append((b"content-type", reply.content_type.encode()))
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
