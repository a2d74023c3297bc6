"""A psycopg connection with bounded waits and confirmed commits."""

import time
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus

Result = TypeVar("Result")

#: Seconds that the server has to end what it is asked to end, after its time is up.
_CANCEL_SECONDS: Final = 1.0


class BoundedConnection(psycopg.Connection[Any]):
    """A psycopg connection that is closed where an answer is late or a commit unsafe.

    An answer comes within `patience` seconds, or OperationalError does. A system's own timeouts do not see to that: a
    server that is stopped, or that waits for its standby, acknowledges every packet.

    A commit that returns is as safe as `synchronous_commit` says. PostgreSQL answers COMMIT with success and a mere
    warning when its waiting for the standby is ended by `statement_timeout` or by somebody's pg_cancel_backend(): what
    was committed is then on one server alone, and is gone with it.
    """

    #: Seconds within which the server must answer; None for as long as it takes.
    patience: float | None = None
    _warnings: int = 0

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> "BoundedConnection":
        """As psycopg's own; the words of libpq bound how long it takes."""
        connection = super().connect(*args, **kwargs)
        connection.add_notice_handler(connection._noticed)  # noqa: SLF001 - of this class
        return connection

    def wait(self, gen: Generator[Any, Any, Result], *args: Any, **kwargs: Any) -> Result:
        """Wait for the server's answer, for `patience` seconds at most."""
        if self.patience is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_until(gen, time.monotonic() + self.patience), *args, **kwargs)
        except _NoAnswer:
            pass
        if self.info.transaction_status == TransactionStatus.ACTIVE:
            # Otherwise the session would hold its locks, and its place among max_connections, until it is done.
            _quietly(lambda: self.cancel_safe(timeout=_CANCEL_SECONDS))
        self.close()
        raise psycopg.OperationalError(f"no answer within {self.patience:g} s")

    def commit(self) -> None:
        """Commit, here and at the standby that `synchronous_commit` waits for."""
        before = self._warnings
        super().commit()
        if self._warnings != before:
            self.close()
            raise psycopg.OperationalError("the commit was not confirmed by the standby")

    def _noticed(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warnings += 1


class _NoAnswer(Exception):
    """The time is up."""


def _until(gen: Generator[Any, Any, Result], deadline: float) -> Generator[Any, Any, Result]:
    """Run the generator; raise _NoAnswer when it waits after the deadline."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= deadline:  # psycopg looks ten times a second
                raise _NoAnswer
            wanted = gen.send(ready)
    except StopIteration as end:
        result: Result = end.value
        return result


def _quietly(call: Callable[[], object]) -> None:
    """Run it and ignore errors: the server may be gone, and the next step is right."""
    try:
        call()
    except psycopg.Error:
        return
