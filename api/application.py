"""The API as an ASGI application: who calls, how fast, what for; every refusal in the one error shape."""

import json
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

import structlog
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from api.errors import (
    Fault,
    HttpsRequired,
    InvalidRequest,
    MethodNotAllowed,
    ScopeMissing,
    TooManyRequests,
    UnknownPath,
)
from api.idempotent import Done, Idempotency, key_of
from api.keys import authenticated, presented
from api.limits import Allowance, allowance
from api.operation import Call, Operation, Plain
from api.parts import Parts
from api.paths import Table
from api.reading import body_of, path_id, query_of
from api.refusals import as_refusal
from service.permissions import granted
from statemachine.errors import ServiceError
from storage.errors import NotFound
from storage.ids import new_id
from storage.tables_support import ApiKey
from storage.token_buckets import BucketRate, TakenToken, token_buckets

log = structlog.get_logger()

_JSON: Final = "application/json"
_ID_FORM: Final = "01a1fdca-6b5b-712f-b9f0-87ef6d7b7107"

Result = TypeVar("Result")


class Api:
    """Serves its operations. Nothing is cached: a key that was revoked opens nothing from then on."""

    def __init__(self, parts: Parts, operations: Sequence[Operation]) -> None:
        self._parts = parts
        self._table = Table(operations)
        self._rate = BucketRate(parts.bounds.requests_per_second, parts.bounds.burst)
        self._rates = token_buckets(parts.database, self._rate)
        self._idempotency = Idempotency()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        out = _Answer(send, new_id(), is_head=scope["method"] == "HEAD")
        try:
            await self._serve(scope, receive, out)
        except ServiceError as error:
            await out.refuse(as_refusal(error))
        except Exception:
            log.exception("request.failed", request_id=out.request_id)
            if out.is_begun:
                raise
            await out.refuse(ServiceError("an internal error; it is logged"))

    async def _serve(self, scope: Scope, receive: Receive, out: "_Answer") -> None:
        if not self._parts.is_secure(scope):
            raise HttpsRequired
        operation, path = self._found(scope, out)
        headers = Headers(scope=scope)
        text = presented(headers)
        key, taken = await self._parts.in_thread(lambda: self._admitted(text))
        out.allow(allowance(self._rate, taken))
        if operation.needs not in granted(key.scopes):
            raise ScopeMissing(f"the key needs the scope {operation.scope.value}")
        path = _identified(operation, path)
        raw = b"" if operation.method == "GET" else await self._parts.read_body(scope, receive)
        faults: list[Fault] = []
        name = _read(lambda: key_of(operation, headers), faults)
        query = _read(lambda: query_of(operation.query, scope.get("query_string", b"")), faults)
        body = None if operation.method == "GET" else _read(lambda: body_of(operation.body, raw, headers), faults)
        if faults:
            raise InvalidRequest(faults)
        call = Call(self._parts, key, out.request_id, path, query, body, headers, receive)
        if name is None:
            await out.give(operation.status, await _done(operation, call))
            return

        async def do() -> Done:
            answer = await _done(operation, call)
            if not isinstance(answer, BaseModel):
                raise TypeError(operation.id)
            return Done(operation.status, answer.model_dump_json())

        done = await self._idempotency.once(operation, call, name, do)
        if done.is_replayed:
            out.headers["idempotent-replayed"] = "true"
        if done.is_replayed and done.status >= 400:
            refusal = json.loads(done.text)
            refusal["error"]["request_id"] = out.request_id
            await out.give(done.status, refusal)
        else:
            await out.send(done.status, _JSON, done.text.encode())

    def _admitted(self, text: str) -> tuple[ApiKey, TakenToken]:
        key = authenticated(self._parts.database, text, self._parts.clock())
        return key, self._rates.take(key.id)

    def _found(self, scope: Scope, out: "_Answer") -> tuple[Operation, Mapping[str, str]]:
        found = self._table.find(scope["path"])
        if found is None:
            near = self._table.nearest(scope["path"])
            raise UnknownPath(f"there is nothing at this path; did you mean {near}?" if near else None)
        by_method, path = found
        operation = by_method.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if operation is None:
            out.headers["allow"] = ", ".join(sorted({*by_method, *(("HEAD",) if "GET" in by_method else ())}))
            raise MethodNotAllowed
        return operation, path


def _read(do: Callable[[], Result], faults: list[Fault]) -> Result | None:
    """Read one part of a request; keep what is wrong with it, so that all that is wrong is told at once."""
    try:
        return do()
    except InvalidRequest as wrong:
        faults += wrong.faults
        return None


def _identified(operation: Operation, path: Mapping[str, str]) -> Mapping[str, str]:
    """Check the id in the path; raises NotFound for what cannot be one, as for one that nothing has."""
    if operation.resource is None:
        return path
    whole = path_id(path["id"])
    if whole is None:
        words = f"there is no {operation.resource.words} of this id; an id has the form {_ID_FORM}"
        raise NotFound(words, param="id", code=operation.resource.missing)
    return {**path, "id": whole}


async def _done(operation: Operation, call: Call) -> "BaseModel | Plain":
    """Do the operation; what its path names and nothing has is told by the code of its resource."""
    try:
        return await operation.does(call)
    except NotFound as missing:
        if operation.resource is not None and missing.code == NotFound.code:
            raise NotFound(missing.message, param="id", code=operation.resource.missing) from missing
        raise


class _Answer:
    """What goes back, once; every answer carries its request id and what the key may still send."""

    def __init__(self, send: Send, request_id: str, *, is_head: bool) -> None:
        self._send = send
        self._is_head = is_head
        self.request_id = request_id
        self.is_begun = False
        self.headers: MutableMapping[str, str] = {"x-request-id": request_id, "cache-control": "no-store"}

    def allow(self, allowance: Allowance) -> None:
        """What the key may still send is told; raises TooManyRequests."""
        self.headers["x-ratelimit-limit"] = str(allowance.limit)
        self.headers["x-ratelimit-remaining"] = str(allowance.remaining)
        self.headers["x-ratelimit-reset"] = str(allowance.reset_seconds)
        if not allowance.is_granted:
            self.headers["retry-after"] = str(allowance.retry_after)
            raise TooManyRequests

    async def refuse(self, error: ServiceError) -> None:
        """The error in its shape, with what a client needs to go on."""
        if error.status == 401:
            self.headers["www-authenticate"] = 'Bearer realm="receipted"'
        if error.status in (429, 503):
            wait = getattr(error, "retry_after", None)
            self.headers.setdefault("retry-after", str(max(1, math.ceil(wait))) if wait else "5")
        if error.status in (408, 413):
            self.headers["connection"] = "close"  # the rest of the body is not read
        log.info("request.refused", request_id=self.request_id, code=error.code, status=error.status)
        await self.give(error.status, error.as_json(self.request_id))

    async def give(self, status: int, answer: "BaseModel | Plain | dict[str, Any]") -> None:
        """The whole answer, or its beginning and then what follows."""
        if isinstance(answer, Plain):
            self.headers.update(answer.headers)
            if answer.body is None:
                await self._stream(status, answer)
            else:
                await self.send(status, answer.media_type, answer.body)
        elif isinstance(answer, BaseModel):
            await self.send(status, _JSON, answer.model_dump_json().encode())
        else:
            await self.send(status, _JSON, json.dumps(answer).encode())

    async def send(self, status: int, media_type: str, body: bytes) -> None:
        """One complete answer."""
        await self._begin(status, media_type, [(b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": b"" if self._is_head else body})

    async def _stream(self, status: int, answer: Plain) -> None:
        await self._begin(status, answer.media_type, [])
        if not self._is_head:
            async with aclosing(answer.chunks) as chunks:
                async for chunk in chunks:
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, media_type: str, more: list[tuple[bytes, bytes]]) -> None:
        given = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", media_type.encode()), *more, *given],
        }
        self.is_begun = True
        await self._send(start)
