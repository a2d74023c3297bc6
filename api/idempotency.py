"""Idempotency-Key: a call is done once, and its repeats get the first answer."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from api.caller import ApiCaller, current_caller
from api.errors import KeyConflict, KeyInUse, as_refusal
from api.responses import json_text
from statemachine.errors import ServiceError
from storage import idempotency
from storage.errors import LeaseLost
from storage.idempotency import Answered, CallState

#: Time for which an answer is kept.
RETENTION: Final = timedelta(hours=24)

#: Time after which a call that left no answer has died: longer than a provider's answers and their repeats take.
LEASE: Final = timedelta(minutes=3)

#: Seconds that a parallel repeat waits for the first call's answer, and between two looks for it.
WAIT_S: Final = 15.0
_POLL_INTERVAL_S: Final = 0.1

#: Seconds between two sweeps of what has expired.
_SWEEP_INTERVAL_S: Final = 60.0

KEY_HEADER: Final = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer, and whether it is that of an earlier call."""

    status: int
    text: str
    is_replayed: bool = False


class Idempotency:
    """Answers repeats, later or in parallel, from storage.

    Keys are those of an environment, so that a rotated API key repeats as well.
    """

    def __init__(self) -> None:
        self._swept_at = 0.0

    async def once(
        self, caller: ApiCaller, key: str, digest: str, do: Callable[[], Awaitable[KeptAnswer]]
    ) -> KeptAnswer:
        """Return the answer of `do`, or of the first call with this key.

        Raises KeyConflict or KeyInUse.

        An answer that says try again is not kept: a repeat does it anew. So does one after a crash; that is safe since
        what is done is recorded by the merchant's reference, or changes nothing the second time.
        """
        scope = caller.key.environment
        token = await self._claim(caller, scope, key, digest)
        if isinstance(token, KeptAnswer):
            return token
        try:
            done = await do()
        except ServiceError as error:
            if is_final(as_refusal(error)):
                answer = Answered(error.status, json.dumps(error.as_json(caller.request_id)))
                await self._finish(caller, scope, key, token, answer)
            else:
                await self._release(caller, scope, key, token)
            raise
        except BaseException:
            await self._release(caller, scope, key, token)
            raise
        await self._finish(caller, scope, key, token, Answered(done.status, done.text))
        return done

    async def _claim(self, caller: ApiCaller, scope: str, key: str, digest: str) -> int | KeptAnswer:
        deadline = time.monotonic() + WAIT_S
        while True:
            standing = await caller.write(
                lambda unit: idempotency.begin(
                    unit, scope, key, digest, caller.deps.clock(), lease=LEASE, keep=RETENTION
                )
            )
            decided = self._decided(standing)
            if decided is not None:
                await self._sweep(caller)
                return decided
            if time.monotonic() > deadline:
                raise KeyInUse
            await asyncio.sleep(_POLL_INTERVAL_S)

    def _decided(self, standing: CallState) -> int | KeptAnswer | None:
        if standing.is_conflict:
            raise KeyConflict
        if standing.answered is not None:
            return KeptAnswer(standing.answered.http_status, standing.answered.answer, is_replayed=True)
        return standing.token

    async def _finish(self, caller: ApiCaller, scope: str, key: str, token: int, answer: Answered) -> None:
        try:
            await caller.write(lambda unit: idempotency.finish(unit, scope, key, token, answer, caller.deps.clock()))
        except LeaseLost:
            return  # another call took over, and keeps its own answer: it is about the same payment

    async def _release(self, caller: ApiCaller, scope: str, key: str, token: int) -> None:
        await asyncio.shield(caller.write(lambda unit: idempotency.release(unit, scope, key, token)))

    async def _sweep(self, caller: ApiCaller) -> None:
        now = time.monotonic()
        if now - self._swept_at > _SWEEP_INTERVAL_S:
            self._swept_at = now
            await caller.write(lambda unit: idempotency.sweep(unit, caller.deps.clock()))


#: Refusals that the next call may not meet: of credentials, of what is not there yet, of time and of pace, of a state
#: that others change, and what is locked or comes too early.
_PASSING: Final = frozenset({401, 403, 404, 408, 409, 423, 425, 429})


def is_final(error: ServiceError) -> bool:
    """Return True where the same call would be refused for ever.

    Such a refusal is kept. Of conflicts only that of the reference itself: what it was used for first does not change.
    """
    may_retry = error.retryable or bool(getattr(error, "may_retry", False)) or getattr(error, "is_ambiguous", False)
    if may_retry or not 400 <= error.status < 500:
        return False
    return error.is_for_ever or error.status not in _PASSING


def digest_of(operation_id: str, path: Mapping[str, Any], body: BaseModel | None) -> str:
    """Digest the content of a call, however its JSON is written."""
    content = [operation_id, dict(path), body.model_dump(mode="json") if body is not None else None]
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RepeatableCall:
    """Call that is done once for its Idempotency-Key; without one, just done."""

    request: Request
    caller: ApiCaller
    key: str | None

    @property
    def required_key(self) -> str:
        """The Idempotency-Key of a call that needs one, which was checked before."""
        assert self.key is not None  # noqa: S101 - with_key() has looked
        return self.key

    async def __call__(self, do: Callable[[], Awaitable[BaseModel]], body: BaseModel | None = None) -> Response:
        """Return the answer of `do`, or that of the first call with this key.

        Raises KeyConflict or KeyInUse.
        """
        if self.key is None:
            return json_text(200, (await do()).model_dump_json())

        async def answer() -> KeptAnswer:
            return KeptAnswer(200, (await do()).model_dump_json())

        digest = digest_of(self.request.scope["route"].operation_id, self.request.path_params, body)
        shared: Idempotency = self.request.app.state.idempotency
        kept = await shared.once(self.caller, self.key, digest, answer)
        if not kept.is_replayed:
            return json_text(kept.status, kept.text)
        self.request.state.headers["idempotent-replayed"] = "true"
        if kept.status < 400:
            return json_text(kept.status, kept.text)
        refusal = json.loads(kept.text)
        refusal["error"]["request_id"] = self.caller.request_id
        return json_text(kept.status, json.dumps(refusal))


_KEY: Final[Any] = Header(
    alias=KEY_HEADER,
    description="your name of this call: its repeat within 24 hours is answered as the call was",
    pattern="^[!-~]{1,255}$",
)
_Caller = Annotated[ApiCaller, Depends(current_caller)]


async def with_key(request: Request, caller: _Caller, key: Annotated[str, _KEY]) -> RepeatableCall:
    """Require an Idempotency-Key."""
    return RepeatableCall(request, caller, key)


async def with_any_key(request: Request, caller: _Caller, key: Annotated[str | None, _KEY] = None) -> RepeatableCall:
    """Accept an Idempotency-Key."""
    return RepeatableCall(request, caller, key)


#: A call that needs an Idempotency-Key, and one that may have one.
KeyedCall = Annotated[RepeatableCall, Depends(with_key)]
Repeatable = Annotated[RepeatableCall, Depends(with_any_key)]
