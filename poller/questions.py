"""The questions of one walk: each is repeated while that makes sense, and an outage ends them all."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from poller import breaker
from poller.ask import LEASE
from poller.errors import ReconciliationPaused
from providers.errors import ProviderError
from storage import rate_limits
from storage.database import Database, Unit
from storage.rate_limits import Gate

Answered = TypeVar("Answered")
Sleep = Callable[[float], Awaitable[None]]

#: How often one question is put.
_ATTEMPTS: Final = 3

#: The first wait between two of them, in seconds; doubles.
_FIRST_WAIT: Final = 1.0

#: A longer wait that the provider wishes for ends the walk for now.
_LONGEST_WAIT: Final = 60.0

#: So many questions in a row without an answer are an outage: one that fails says nothing of the next.
_OUTAGE: Final = 5

#: How long a walk waits for a provider that is away.
_AWAY: Final = timedelta(seconds=60)

#: Answers that say nothing of what was asked about: our key is refused, or we ask too much.
_NOT_OF_THE_QUESTION: Final = frozenset({401, 403, 429})


def is_outage(error: ProviderError) -> bool:
    """Whether the next question is likely to fail too: no answer, a fault of the provider's, or our key is refused."""
    if error.http_status is None:
        return error.may_retry
    return error.http_status >= 500 or error.http_status in _NOT_OF_THE_QUESTION


class Questions:
    """Puts questions to one provider account, and gives up on it after many in a row had no answer.

    The account's breaker is heeded, and told what becomes of each question: who else asks finds out sooner.
    """

    def __init__(
        self, database: Database, account: str, clock: Callable[[], datetime], sleep: Sleep, rng: random.Random
    ) -> None:
        self._database = database
        self._account = account
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._in_a_row = 0
        self._paused: ReconciliationPaused | None = None
        self.is_probe = False  #: whether only one question may be put, to try whether the provider is back

    async def wait_until_there(self) -> None:
        """Return when the account may be asked; raises ReconciliationPaused where it has been away for long."""
        while not self.is_probe and (wait := await asyncio.to_thread(self._wait_for_the_breaker)):
            await self._sleep(wait)

    async def put(self, ask: Callable[[], Awaitable[Answered]]) -> Answered:
        """The answer, after at most three tries. Raises ProviderError, or what else the call raises, where there is
        none, and ReconciliationPaused, for this and every later question, where the provider is away.
        """
        for attempt in range(_ATTEMPTS):
            if self._paused is not None:
                raise self._paused
            try:
                answer = await ask()
            except ProviderError as error:
                if not error.may_retry or attempt + 1 == _ATTEMPTS:
                    await asyncio.to_thread(self._note_failure, error)
                    self._count(error)
                    raise
                await self._sleep(self._wait(error, attempt))
            else:
                self._in_a_row = 0
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def pause(self, error: ProviderError, *, wait: float | None = None) -> ReconciliationPaused:
        """No more questions: what is to be raised for this error."""
        words = f"the provider gives no answers now ({error.code}: {error.message})"
        self._paused = self._paused or ReconciliationPaused(words, wait=wait or error.retry_after)
        return self._paused

    def _wait_for_the_breaker(self) -> float:
        """Seconds to wait before it is worth looking again; 0 where one may ask, and that may be the probe."""
        now = self._clock()
        with self._database.write() as unit:
            gate = rate_limits.gate(unit, self._account, now, LEASE)
            state = rate_limits.breaker(unit, self._account)
        self.is_probe = gate is Gate.PROBE
        if gate is not Gate.OPEN:
            return 0.0
        if state.broken_at is not None and now - state.broken_at > _AWAY:
            words = f"it has been away since {state.broken_at:%Y-%m-%d %H:%M:%SZ}"
            raise self.pause(ProviderError(words, provider_code="provider_away"))
        return max(1.0, (state.probe_at - now).total_seconds()) if state.probe_at else 1.0

    def note_answer(self, unit: Unit) -> breaker.Change | None:
        """The breaker knows of an answer; writes nothing where none was missing before. For `breaker.log_change`."""
        was_probe, self.is_probe = self.is_probe, False
        return breaker.note(unit, self._account, None, self._clock(), 0.0, was_probe=was_probe)

    def _note_failure(self, error: ProviderError) -> None:
        now, jitter = self._clock(), self._rng.random()
        was_probe, self.is_probe = self.is_probe, False
        with self._database.write() as unit:
            change = breaker.note(unit, self._account, error, now, jitter, was_probe=was_probe)
        breaker.log_change(self._account, change)

    def _count(self, error: ProviderError) -> None:
        self._in_a_row = self._in_a_row + 1 if is_outage(error) else 0
        if self._in_a_row >= _OUTAGE:
            raise self.pause(error) from error

    def _wait(self, error: ProviderError, attempt: int) -> float:
        if error.retry_after is not None and error.retry_after > _LONGEST_WAIT:
            raise self.pause(error) from error
        return max(error.retry_after or 0.0, _FIRST_WAIT * 2.0**attempt * (1 + self._rng.random() / 5))


async def all_of(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Every one has ended; where one raised, the others are ended first, and then that is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
