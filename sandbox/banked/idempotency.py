"""Banked's idempotency: what was answered once under a key is answered again."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.banked.errors import refuse
from sandbox.times import now
from sandbox.web import Call, Reply

KEPT_SECONDS = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class _Stored:
    fingerprint: tuple[str, str, bytes]
    reply: Reply
    ends_at: datetime


class Idempotency:
    """2xx and 4xx are replayed for 30 days; 429, `Processing` and 5xx are not stored."""

    def __init__(self, scale: Callable[[float], float]) -> None:
        self._scale = scale
        self._stored: dict[str, _Stored] = {}
        self._busy: set[str] = set()

    async def run(self, call: Call, work: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the stored reply, or that of `work`.

        409 for a key in use or used for another request.
        """
        key = call.headers.get("idempotency-key")
        if key is None or call.method == "GET":
            return await work()
        if not key.strip() or len(key) > 255:
            return refuse(call, [("invalid_idempotency_key", "Idempotency-Key")], status=400).reply
        if key in self._busy:
            return refuse(call, [("Processing", "Idempotency-Key")]).reply
        fingerprint = (call.method, call.path, call.body)
        stored = self._stored.get(key)
        if stored and stored.ends_at > now():
            if stored.fingerprint != fingerprint:
                return refuse(call, [("invalid_idempotency_key", "Idempotency-Key")]).reply
            return stored.reply
        self._busy.add(key)
        try:
            reply = await work()
        finally:
            self._busy.discard(key)
        is_processing = reply.status == 409 and b'"code":"Processing"' in reply.body
        if reply.status < 500 and reply.status != 429 and not is_processing:
            ends_at = now() + timedelta(seconds=self._scale(KEPT_SECONDS))
            self._stored[key] = _Stored(fingerprint, reply, ends_at)
        return reply
