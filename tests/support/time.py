"""An event loop whose time is simulated: it jumps to the next thing that happens, and nothing waits."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: what the loop would have waited for is told to it as time gone by."""

    def __init__(self, passed: Callable[[float], None]) -> None:
        super().__init__()
        self._passed = passed

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits for something that nobody does")
        self._passed(timeout)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Runs what is given to threads in the loop itself, so long after it was given, and answers so long after that."""

    def __init__(self, latency: Callable[[], float] = lambda: 0.0) -> None:
        self._now = 0.0
        self._latency = latency
        super().__init__(_Jumping(self._pass))

    def time(self) -> float:
        return self._now

    def run_in_executor(self, _executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        self.call_later(self._latency(), self._run, future, function, args)
        return future

    def _run(self, future: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:  # done even where nobody waits for it any more, as a thread would
            done, tell = function(*args), future.set_result
        except BaseException as fault:  # noqa: BLE001 - as a thread hands it over, crashes included
            done, tell = fault, future.set_exception

        def answer() -> None:
            if not future.done():
                tell(done)

        self.call_later(self._latency(), answer)

    def _pass(self, seconds: float) -> None:
        self._now += max(seconds, 0.0)
