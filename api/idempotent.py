"""A call with an Idempotency-Key is done once: its repeats, of the same hour or in parallel, get the first's answer."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final

from starlette.datastructures import Headers

from api.errors import Fault, InvalidRequest, KeyConflict, KeyInUse
from api.operation import Call, Operation, Repeats
from api.refusals import as_refusal
from statemachine.errors import ServiceError
from storage import idempotency
from storage.errors import LeaseLost
from storage.idempotency import Answered, Standing

#: How long an answer is kept.
KEEP: Final = timedelta(hours=24)

#: A call that has left no answer for so long has died: longer than a provider's answers and their repeats take.
LEASE: Final = timedelta(minutes=3)

#: Seconds that a parallel repeat waits for the first call's answer, and between two looks.
PATIENCE: Final = 15.0
_TICK: Final = 0.1

_FORM: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)

#: Seconds between two sweeps of what has expired.
_SWEEP_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """An answer, and whether it is that of an earlier call."""

    status: int
    text: str
    is_replayed: bool = False


def key_of(operation: Operation, headers: Headers) -> str | None:
    """The call's Idempotency-Key, where it counts; raises InvalidRequest where it is needed, or is none."""
    if operation.repeats is Repeats.NO:
        return None
    given = headers.get("idempotency-key")
    if given is None:
        if operation.repeats is Repeats.MUST:
            words = "this call needs the header Idempotency-Key"
            raise InvalidRequest([Fault("idempotency_key_missing", words, "Idempotency-Key", "header")])
        return None
    if not _FORM.fullmatch(given):
        words = "an Idempotency-Key has 1 to 255 visible ASCII characters"
        raise InvalidRequest([Fault("invalid_value", words, "Idempotency-Key", "header")])
    return given


class Idempotency:
    """Answers repeats from storage. Keys are those of an environment, so that a rotated API key repeats as well."""

    def __init__(self) -> None:
        self._swept_at = 0.0

    async def once(self, operation: Operation, call: Call, key: str, do: Callable[[], Awaitable[Done]]) -> Done:
        """The answer of `do`, or of the first call with this key; raises KeyConflict or KeyInUse.

        An answer that says try again is not kept: a repeat does it anew. So does one after a crash; that is safe since
        what is done is recorded by the merchant's reference, or changes nothing the second time.
        """
        scope, digest = call.key.environment, digest_of(operation, call)
        token = await self._claimed(call, scope, key, digest)
        if isinstance(token, Done):
            return token
        try:
            done = await do()
        except ServiceError as error:
            if is_final(as_refusal(error)):
                answer = Answered(error.status, json.dumps(error.as_json(call.request_id)))
                await self._finish(call, scope, key, token, answer)
            else:
                await self._release(call, scope, key, token)
            raise
        except BaseException:
            await self._release(call, scope, key, token)
            raise
        await self._finish(call, scope, key, token, Answered(done.status, done.text))
        return done

    async def _claimed(self, call: Call, scope: str, key: str, digest: str) -> int | Done:
        give_up_at = time.monotonic() + PATIENCE
        while True:
            standing = await call.write(
                lambda unit: idempotency.begin(unit, scope, key, digest, call.parts.clock(), lease=LEASE, keep=KEEP)
            )
            decided = self._decided(standing)
            if decided is not None:
                await self._sweep(call)
                return decided
            if time.monotonic() > give_up_at:
                raise KeyInUse
            await asyncio.sleep(_TICK)

    def _decided(self, standing: Standing) -> int | Done | None:
        if standing.is_conflict:
            raise KeyConflict
        if standing.answered is not None:
            return Done(standing.answered.http_status, standing.answered.answer, is_replayed=True)
        return standing.token

    async def _finish(self, call: Call, scope: str, key: str, token: int, answer: Answered) -> None:
        try:
            await call.write(lambda unit: idempotency.finish(unit, scope, key, token, answer, call.parts.clock()))
        except LeaseLost:
            return  # another took over, and keeps its own answer: it is about the same payment

    async def _release(self, call: Call, scope: str, key: str, token: int) -> None:
        await asyncio.shield(call.write(lambda unit: idempotency.release(unit, scope, key, token)))

    async def _sweep(self, call: Call) -> None:
        now = time.monotonic()
        if now - self._swept_at > _SWEEP_EVERY:
            self._swept_at = now
            await call.write(lambda unit: idempotency.sweep(unit, call.parts.clock()))


#: Refusals that the next call may not meet: of credentials, of what is not there yet, of time and of pace, of a state
#: that others change, and what is locked or comes too early.
_PASSING: Final = frozenset({401, 403, 404, 408, 409, 423, 425, 429})


def is_final(error: ServiceError) -> bool:
    """Return whether the same call would be refused for ever, so that the refusal is worth keeping.

    Of conflicts only that of the reference itself: what it was used for first does not change.
    """
    may_retry = error.retryable or bool(getattr(error, "may_retry", False)) or getattr(error, "is_ambiguous", False)
    if may_retry or not 400 <= error.status < 500:
        return False
    return error.is_for_ever or error.status not in _PASSING


def digest_of(operation: Operation, call: Call) -> str:
    """What the call is about: the same for the same content, however it is written."""
    body = call.body.model_dump(mode="json") if call.body is not None else None
    content = [operation.id, dict(call.path), body]
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
