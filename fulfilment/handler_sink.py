"""Effects to a Python callable of the merchant's, named by entry point or by path."""

import asyncio
import contextvars
import inspect
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

import structlog

from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.errors import InvalidHandler, InvalidSink, RetryLater

#: The entry point group in which a merchant's distribution names its handlers.
GROUP: Final = "receipted.handlers"
TIMEOUT_S: Final = 30.0

#: Seconds that calls have to end when the sink is closed, before a warning names the handler.
_CLOSE_GRACE_S: Final = 1.0
_CLOSE_CHECK_INTERVAL_S: Final = 0.05

_log = structlog.get_logger()

#: The calls of this process that have not come back, in threads and in the event loop, by sink and handler.
_under_way: Counter[str] = Counter()
_counting: Final = threading.Lock()


def under_way() -> list[str]:
    """List the running handlers of this process as "sink (module:function)"."""
    return sorted(name for name, calls in _under_way.copy().items() if calls > 0)


@dataclass(frozen=True, slots=True)
class Fulfilment:
    """An effect as a handler receives it.

    It may come again with the same `id` after it was done: keep the id, and skip it.
    """

    id: str  #: the idempotency key: the same at every attempt
    effect: str  #: such as "payment.paid"
    payload: dict[str, Any]  #: decoded anew for each attempt, so a handler may change it
    attempt: int  #: 1, 2, 3, ...


Handler = Callable[[Fulfilment], Any]


class HandlerSink:
    """Call one handler with each effect, at least once; delivered if it returns None.

    An async handler is awaited; any other runs in a thread of this sink, of which there are `threads`. It fails by
    raising, RetryLater to say when to ask again. One that takes longer than `timeout` seconds has failed as well,
    although a thread cannot be stopped and goes on; so does an answer other than None, since nobody knows what it
    means. Raises InvalidHandler at construction when the handler is missing or not callable.
    """

    def __init__(self, name: str, handler: str, *, timeout: float = TIMEOUT_S, threads: int = 8) -> None:
        if timeout <= 0 or threads < 1:
            raise InvalidSink("a handler needs a timeout above 0 seconds and at least one thread")
        self.name = name
        self._handler = load(handler)
        self._title = f"{name} ({handler})"
        self._is_async = _is_async(self._handler)
        self._timeout = timeout
        self.threads = 0 if self._is_async else threads  #: what bounds how many calls run at once
        # Threads of its own: a handler that hangs must not take those that the database calls need.
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"handler-{name}")

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """Call the handler once.

        What it raises is recorded by its type, since a message may carry a payload.
        """
        try:
            payload = json.loads(owed.payload)
        except ValueError:
            payload = None
        if not isinstance(payload, dict):
            return Failed("the payload is not a JSON object", is_final=True)
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                answer = await self._call(Fulfilment(owed.id, owed.effect, payload, owed.attempt))
        except RetryLater as later:
            return Failed("RetryLater", retry_after=later.seconds)
        except Exception as error:  # noqa: BLE001 - the handler is foreign code, and any failure of it is an attempt
            if isinstance(error, TimeoutError) and limit.expired():
                return Failed(f"the handler took longer than {self._timeout:g} s")
            _log.warning(
                "handler.failed",
                webhook_id=owed.id,
                sink=self.name,
                exc_type=type(error).__qualname__,
                raised_in=_raised_in(error),
            )
            return Failed(type(error).__qualname__)
        if answer is not None:
            return Failed(f"the handler returned {type(answer).__qualname__} instead of None")
        return Delivered()

    async def _call(self, fulfilment: Fulfilment) -> Any:
        if self._is_async:
            with _at_work(self._title):
                return await self._handler(fulfilment)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        answer, error = await loop.run_in_executor(
            self._threads, context.run, _guarded, self._title, self._handler, fulfilment
        )
        if error is not None:
            raise error
        if not inspect.isawaitable(answer):
            return answer
        with _at_work(self._title):
            return await answer

    async def aclose(self) -> None:
        """Start no further calls, and wait a second at most for those that run.

        A repeat does nothing.
        """
        self._threads.shutdown(wait=False, cancel_futures=True)
        loop = asyncio.get_running_loop()
        until = loop.time() + _CLOSE_GRACE_S
        while _under_way[self._title] > 0 and loop.time() < until:  # noqa: ASYNC110 - a thread sets no event here
            await asyncio.sleep(_CLOSE_CHECK_INTERVAL_S)
        if (calls := _under_way[self._title]) > 0:
            _log.warning("handler.abandoned", handlers=[self._title], calls=calls)


def load(handler: str) -> Handler:
    """Load the callable of `module:function` or of an entry point's name.

    Raises InvalidHandler.
    """
    if ":" in handler:
        module, _, path = handler.partition(":")
    else:
        named = entry_points(group=GROUP, name=handler)
        if len(named) != 1:
            how_many = "no" if not named else "more than one"
            raise InvalidHandler(f"{how_many} entry point {handler!r} in {GROUP}", param="handler")
        found = next(iter(named))
        module, path = found.module, found.attr
    try:
        target: Any = import_module(module)
        for attribute in path.split("."):
            target = getattr(target, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidHandler(f"handler {handler!r} cannot be found ({_why(error)})", param="handler") from error
    except (Exception, SystemExit) as error:  # foreign code runs while it is imported, and may do anything
        words = f"handler {handler!r} cannot be imported ({type(error).__name__})"
        raise InvalidHandler(words, param="handler") from error
    if not callable(target):
        raise InvalidHandler(f"handler {handler!r} is not callable", param="handler")
    called: Handler = target
    return called


def _why(error: Exception) -> str:
    """Name what is missing in Python's own words, else the kind of error."""
    is_telling = isinstance(error, ModuleNotFoundError | AttributeError)
    return str(error) if is_telling else type(error).__name__


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


@contextmanager
def _at_work(title: str) -> Iterator[None]:
    with _counting:
        _under_way[title] += 1
    try:
        yield
    finally:
        with _counting:
            _under_way[title] -= 1


def _guarded(title: str, handler: Handler, fulfilment: Fulfilment) -> tuple[Any, Exception | None]:
    try:
        with _at_work(title):
            return handler(fulfilment), None
    except Exception as error:  # noqa: BLE001 - carried over as a value: a future refuses StopIteration and hangs
        return None, error


def _raised_in(error: Exception) -> str | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return None if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
