"""The questions of one walk: each is repeated while that makes sense, and an outage ends them all."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from poller.errors import ReconciliationPaused
from providers.errors import ProviderError

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

#: Answers that say nothing of what was asked about: our key is refused, or we ask too much.
_NOT_OF_THE_QUESTION: Final = frozenset({401, 403, 429})


def is_outage(error: ProviderError) -> bool:
    """Whether the next question is likely to fail too: no answer, a fault of the provider's, or our key is refused."""
    if error.http_status is None:
        return error.may_retry
    return error.http_status >= 500 or error.http_status in _NOT_OF_THE_QUESTION


class Questions:
    """Puts questions to one provider account, and gives up on it after many in a row had no answer."""

    def __init__(self, sleep: Sleep, rng: random.Random) -> None:
        self._sleep = sleep
        self._rng = rng
        self._in_a_row = 0
        self._paused: ReconciliationPaused | None = None

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
