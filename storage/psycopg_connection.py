"""A psycopg connection with bounded waits and confirmed commits."""

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import Diagnostic
from psycopg.pq import Conninfo, TransactionStatus

from storage.connections import configure, libpq_words, session_of
from storage.postgresql_url import PostgresqlUrl

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


class Opener:
    """Opener of connections that have our settings whatever the defaults are.

    Settings come with the request to connect, before any statement: the defaults could end or garble the very statement
    that sets them, and SQLAlchemy asks a first connection several things. A pooler refuses them there, so that behind
    one they are set by a first statement, of the session or of each transaction.
    """

    def __init__(self, url: PostgresqlUrl) -> None:
        self._url = url
        self._words = libpq_words(url)
        self._major = 0  #: version of the server that was reached last

    def open(self, keywords: Mapping[str, Any], patience: float) -> BoundedConnection:
        """Open a connection, with further words of libpq, and seconds for each answer."""
        connection = self._begin(keywords) if self._url.pooler else self._begin_configured(keywords)
        connection.patience = patience
        if self._url.is_pooled:
            connection.prepare_threshold = None
        elif self._url.pooler or not _is_as_set(connection):
            _execute_alone(connection, configure(is_local=False))
        return connection

    def _begin_configured(self, keywords: Mapping[str, Any]) -> BoundedConnection:
        try:
            session = session_of(self._major)
            connection = self._begin(keywords, {"options": _options(self._words.get("options"), session)})
            self._major = connection.info.server_version // 10_000
            newer = session_of(self._major)
            if newer != session:
                connection.close()
                connection = self._begin(keywords, {"options": _options(self._words.get("options"), newer)})
        except psycopg.OperationalError:
            self._major = 0  # an older server refuses what a newer one has
            raise
        return connection

    def _begin(self, *keywords: Mapping[str, Any]) -> BoundedConnection:
        words = {name: value for each in (self._words, *keywords) for name, value in each.items()}
        return BoundedConnection.connect(**words, client_encoding="utf8")


def _options(operators: str | None, session: Mapping[str, str]) -> str:
    """Return libpq's `options`: the operator's, and ours after them, which count.

    The operator's are those of the URL, or of PGOPTIONS.
    """
    if operators is None:
        found = next(each for each in Conninfo.get_defaults() if each.keyword == b"options")
        operators = (found.val or b"").decode()
    ours = (f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in session.items())
    return " ".join((operators, *ours)).strip()


def _is_as_set(connection: BoundedConnection) -> bool:
    """Return whether the server reports what we asked for.

    PGDATESTYLE and PGTZ go over libpq's `options`.
    """
    reported = {name: connection.info.parameter_status(name) for name in ("DateStyle", "TimeZone")}
    return all(value == session_of(0)[name.lower()] for name, value in reported.items())


def _execute_alone(connection: BoundedConnection, statement: str) -> None:
    try:
        connection.autocommit = True
        connection.execute(statement)
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise


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
