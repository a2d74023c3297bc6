"""Delivery engine: sends, retries as each provider does, and fails on demand."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
import structlog

from sandbox.config import SandboxConfig
from sandbox.counts import Counts
from sandbox.faults import Dice, EventPlan
from sandbox.signing import Signer
from sandbox.times import iso, now

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Policy:
    """Retry policy of a provider: delays in seconds, and whether 410 ends it."""

    delays: tuple[float, ...]
    is_gone_final: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One event on its way to one endpoint."""

    provider: str
    name: str  #: reproducible; what faults are drawn by
    lane: str  #: the resource; without faults its events arrive in order
    event: str  #: the provider's word for what happened
    url: str
    body: bytes
    sign: Signer
    sign_wrongly: Signer  #: the same scheme with a key that nobody has
    policy: Policy
    forged: bytes  #: what an attacker would send to look paid
    altered: bytes  #: the same identity with another amount
    has_timestamp: bool = True


@dataclass(slots=True)
class _Lane:
    tail: asyncio.Event | None = None
    held: list[asyncio.Event] = field(default_factory=list)


class Deliveries:
    """Deliveries of posted events, until accepted, refused for good or given up.

    A fault may say otherwise.

    A retry has the same body and a new timestamp and signature.
    """

    def __init__(self, config: SandboxConfig, dice: Dice, counts: Counts) -> None:
        self._config, self._dice, self._counts = config, dice, counts
        self._client: httpx2.AsyncClient | None = None
        self._gate = asyncio.Semaphore(config.delivery_concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lanes: dict[str, _Lane] = {}
        self.journal: deque[dict[str, Any]] = deque(maxlen=10_000)

    @property
    def pending(self) -> int:
        """Events that are still being sent, held, delayed or waiting for a retry."""
        return len(self._tasks)

    async def start(self) -> None:
        """Open the HTTP client.

        Proxies of the environment are ignored and redirects never followed.
        """
        self._client = httpx2.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=self._config.delivery_timeout_seconds,
            limits=httpx2.Limits(
                max_connections=self._config.delivery_concurrency * 2,
                max_keepalive_connections=self._config.delivery_concurrency,
            ),
        )

    async def stop(self) -> None:
        """Drop whatever is still pending."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client:
            await self._client.aclose()

    def post(self, message: Message) -> None:
        """Begin to deliver; returns at once."""
        self._counts.events[message.provider] += 1
        plan = self._dice.event(message.name)
        if plan.lose or message.provider in self._config.lose_all:
            self._counts.outcome(message.provider, "lost")
            self._note(message, 0, "lost", None)
            return
        lane = self._lanes.setdefault(message.lane, _Lane())
        if plan.hold and not lane.held:
            released = asyncio.Event()
            lane.held.append(released)
            self._spawn(self._held(message, plan, lane, released))
        elif plan.delay_seconds:
            self._counts.outcome(message.provider, "delayed")
            self._spawn(self._delayed(message, plan, lane))
        else:
            before, lane.tail = lane.tail, asyncio.Event()
            self._spawn(self._in_turn(message, plan, lane, before, lane.tail))

    async def probe(self, url: str) -> int | None:
        """Return the status of a GET of `url`; None when it cannot be reached."""
        if self._client is None:
            return None
        try:
            return (await self._client.get(url)).status_code
        except (httpx2.HTTPError, httpx2.InvalidURL):
            return None

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("sandbox delivery broke")
                raise

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _held(self, message: Message, plan: EventPlan, lane: _Lane, released: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._config.scaled(self._dice.faults.reorder_hold_seconds)):
                await released.wait()
            self._counts.outcome(message.provider, "reordered")
        except TimeoutError:
            if released in lane.held:
                lane.held.remove(released)
        await self._deliver(message, plan, None)

    async def _delayed(self, message: Message, plan: EventPlan, lane: _Lane) -> None:
        await asyncio.sleep(self._config.scaled(plan.delay_seconds))
        await self._deliver(message, plan, lane)

    async def _in_turn(
        self, message: Message, plan: EventPlan, lane: _Lane, before: asyncio.Event | None, done: asyncio.Event
    ) -> None:
        try:
            if before:
                await before.wait()
            await self._deliver(message, plan, lane, done)
        finally:
            done.set()

    async def _deliver(
        self, message: Message, plan: EventPlan, lane: _Lane | None, done: asyncio.Event | None = None
    ) -> None:
        for attempt in range(1, len(message.policy.delays) + 2):
            if attempt > 1:
                await asyncio.sleep(self._config.scaled(message.policy.delays[attempt - 2]))
            status = await self._attempt(message, plan, attempt)
            if attempt == 1:
                await self._extras(message, plan)
                if done:
                    done.set()
                if lane:
                    while lane.held:
                        lane.held.pop().set()
            if status is not None and 200 <= status < 300:
                self._counts.outcome(message.provider, "delivered")
                return
            self._counts.outcome(message.provider, "unreachable" if status is None else "refused")
            if status == 410 and message.policy.is_gone_final:
                self._counts.outcome(message.provider, "gone")
                return
        self._counts.outcome(message.provider, "given_up")

    async def _attempt(self, message: Message, plan: EventPlan, attempt: int) -> int | None:
        sign, at, fault = message.sign, now(), ""
        if attempt == 1 and plan.corrupt:
            sign, fault = message.sign_wrongly, "corrupted"
        elif attempt == 1 and plan.stale_seconds and message.has_timestamp:
            at, fault = at + timedelta(seconds=plan.stale_seconds), "stale"
        status = await self._send(message, attempt, fault, message.body, sign(message.body, at))
        if fault:
            self._counts.outcome(message.provider, fault)
        return status

    async def _extras(self, message: Message, plan: EventPlan) -> None:
        if plan.copies > 1:
            self._counts.outcome(message.provider, "duplicated")
        for _ in range(plan.copies - 1):
            await self._send(message, 0, "duplicate", message.body, message.sign(message.body, now()))
        if plan.forge:
            self._counts.outcome(message.provider, "forged")
            headers = message.sign_wrongly(message.forged, now()) if plan.forge == "missigned" else {}
            await self._send(message, 0, "forged", message.forged, headers)
        if plan.replay_other_content:
            self._counts.outcome(message.provider, "replayed_other_content")
            await self._send(
                message, 0, "replayed_other_content", message.altered, message.sign(message.altered, now())
            )

    async def _send(
        self, message: Message, attempt: int, fault: str, body: bytes, headers: dict[str, str]
    ) -> int | None:
        if self._client is None:
            msg = "the delivery engine has not been started"
            raise RuntimeError(msg)
        self._counts.attempts[message.provider] += 1
        status: int | None = None
        async with self._gate:
            try:
                answer = await self._client.post(
                    message.url, content=body, headers={"Content-Type": "application/json", **headers}
                )
                status = answer.status_code
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                # Counted as unreachable and kept in the journal; a log line each would drown everything else.
                fault = fault or type(error).__name__
        if fault in {"corrupted", "stale", "forged"} and status is not None and 200 <= status < 300:
            self._counts.outcome(message.provider, f"{fault}_accepted")
        self._note(message, attempt, fault, status)
        return status

    def _note(self, message: Message, attempt: int, fault: str, status: int | None) -> None:
        self.journal.append(
            {
                "provider": message.provider,
                "name": message.name,
                "event": message.event,
                "url": message.url,
                "attempt": attempt,
                "fault": fault,
                "status": status,
                "at": iso(now()),
            }
        )
