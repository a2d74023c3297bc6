"""Providers that deliver without a pause, and deliver again whatever was not acknowledged."""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.support.deliveries import sign

#: What a history ends in: the state, and the effects that it owes.
_STABLE_GENIUS = {
    ("awaiting_payment", "confirmed", "settled"): {"payment.paid", "payment.settled"},
    ("awaiting_payment", "confirmed"): {"payment.paid"},
    ("awaiting_payment", "expired"): {"payment.expired"},
}
_PAYFIELD = {
    ("pending", "success"): {"payment.paid"},
    ("pending", "failed"): {"payment.failed"},
}


@dataclass
class Load:
    """What was sent, what was acknowledged, and what must come of it."""

    port: int
    rng: random.Random
    pause: float  #: seconds between two deliveries of one connection
    acknowledged: dict[bytes, str] = field(default_factory=dict)  #: body -> id of the inbox message
    states: dict[str, str] = field(default_factory=dict)  #: by provider_ref, of histories acknowledged as a whole
    owed: set[tuple[str, str]] = field(default_factory=set)  #: (provider_ref, effect)
    sent: int = 0
    refused: int = 0  #: sent without an answer, or answered 503
    wrong: list[str] = field(default_factory=list)  #: answers that nobody should get
    _number: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """One connection's worth of whole histories, until told to stop; the last is finished all the same."""
        connection = Connection(self.port)
        while not stop.is_set():
            await self.tell(connection)
        connection.close()

    async def tell(self, connection: "Connection") -> None:
        """One whole history, acknowledged in the end."""
        state, bodies, owed = self._history()
        if self.rng.random() < 0.3:
            self.rng.shuffle(bodies)  # providers promise no order
        for body, account in bodies:
            await self._until_acknowledged(connection, account, body)
            if self.rng.random() < 0.1:
                await self._until_acknowledged(connection, account, body)  # nor to deliver once
        self.states[owed[0]] = state
        self.owed |= {(owed[0], effect) for effect in owed[1]}

    async def _until_acknowledged(self, connection: "Connection", account: str, body: bytes) -> None:
        while True:
            self.sent += 1
            status, answer = await connection.post(sign_now(account, body))
            if status == 200:
                self.acknowledged[body] = json.loads(answer)["id"]
                await asyncio.sleep(self.pause)
                return
            self.refused += 1
            if status not in (0, 503):
                self.wrong.append(f"{status} {answer!r}")
            await asyncio.sleep(0.05)  # a provider's back-off

    def _history(self) -> tuple[str, list[tuple[bytes, str]], tuple[str, set[str]]]:
        self._number += 1
        number, at = self._number, datetime.now(UTC).isoformat()
        bodies: list[tuple[bytes, str]] = []
        if self.rng.random() < 0.7:
            ref = f"pi_{number:08d}"
            states, effects = self.rng.choice(list(_STABLE_GENIUS.items()))
            for state in states:
                told = {
                    "id": f"evt_{number:08d}_{state}",
                    "type": f"payment_intent.{state}",
                    "data": {"id": ref, "status": state, "amount": 4.5, "currency": "usd"},
                }
                bodies.append((json.dumps(told).encode(), "sg"))
        else:
            ref = f"order-{number}"
            states, effects = self.rng.choice(list(_PAYFIELD.items()))
            for state in states:
                told = {"id": number, "external_id": ref, "status": state, "amount": "5.00", "currency": "BDT"}
                bodies.append((json.dumps({**told, "updated_at": at}).encode(), "pf"))
        return states[-1], bodies, (ref, effects)


def sign_now(account: str, body: bytes) -> bytes:
    """The whole HTTP request, signed at this moment."""
    signed = sign(account, body)
    lines = [f"POST {signed.path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in signed.headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """Keep-alive, opened again when it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.head = b""  #: of the last answer
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None

    async def post(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 where no whole answer came."""
        try:
            if self._writer is None or self._reader is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(request)
            head = self.head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""
        if b"connection: close" in head.lower():
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Break it off."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reader = None


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return when the condition holds; fail when it does not in time."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - of another process, which sets no event here
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None
