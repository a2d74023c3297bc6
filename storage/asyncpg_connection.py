"""Connections of asyncpg to the writable server among those of the database's URL.

asyncpg reads such URLs too, and differs where it counts: its timeout is for all servers together, so that one that is
away uses up what the next would need; and it takes libpq's words for settings of the server, which refuses them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg  # type: ignore[import-untyped]

from storage.connections import configure, libpq_words, session_of
from storage.errors import DatabaseUnsupported, StorageUnavailable
from storage.postgresql_url import PostgresqlUrl, read_url

#: Of libpq's words, those that asyncpg reads from a URL's query, of its own meaning as libpq's.
_SHARED: Final = (
    *("passfile", "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib", "service"),
)
#: Those that it does not know and can do without: they are about noticing a dead connection, or the order of servers.
_DISPENSABLE: Final = (
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("connect_timeout", "application_name", "target_session_attrs", "load_balance_hosts", "client_encoding"),
)
#: Something written, however little: its commit waits for the standby, and so for all that was committed before it.
_EMIT_MESSAGE: Final = "SELECT pg_logical_emit_message(true, 'receipted', '')"


class ConfirmingConnection(asyncpg.Connection):  # type: ignore[misc]
    """An asyncpg connection that counts server warnings: a durable commit has none.

    PostgreSQL answers COMMIT with success and a mere warning when its waiting for the standby is ended by
    `statement_timeout` or by somebody's pg_cancel_backend(): what was committed is then on one server alone.
    """

    warnings: int = 0
    is_pooled: bool = False

    @asynccontextmanager
    async def configured(self) -> AsyncIterator[None]:
        """Apply the intake settings within the block, for the session or one transaction.

        For one transaction behind a pooler of transactions, for the session otherwise.
        """
        if not self.is_pooled:
            yield
            return
        async with self.transaction(isolation="read_committed"):
            await self.execute(configure(is_local=True))
            yield

    async def confirm(self) -> None:
        """Wait until every commit that is visible here is as durable as a commit of ours.

        A commit whose session is ended while it waits for the standby stands all the same, and is seen by everybody.
        Whoever finds what is there already, and writes nothing, would take it for safe.
        """
        await self.execute(_EMIT_MESSAGE)

    def _process_log_message(self, fields: dict[str, str], last_query: str) -> None:
        # A listener would be called later, and a pool takes listeners away; a test sees to it that this is called.
        if fields.get("V", fields.get("S")) == "WARNING":
            self.warnings += 1
        super()._process_log_message(fields, last_query)


def is_lost(fault: Exception) -> bool:
    """Return whether a connection that raised this is broken or its server read-only."""
    is_broken = isinstance(fault, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError)
    is_moved = isinstance(fault, asyncpg.ReadOnlySQLTransactionError | asyncpg.OperatorInterventionError)
    return is_broken or is_moved or isinstance(fault, asyncpg.PostgresConnectionError)


async def connect(url: str) -> ConfirmingConnection:
    """Connect to the first server of the URL that answers and takes writes.

    Each server has libpq's `connect_timeout` (2 s of several, 3 s of one). Raises StorageUnavailable, without the URL,
    when none is to be had; DatabaseUnsupported when the URL asks for what asyncpg cannot do. Whoever sends a statement
    bounds it with asyncio.timeout(), and ends the connection with terminate() where the time is up: closing it in order
    would wait for the same server.
    """
    address = read_url(url)
    arguments = _arguments(address)
    seconds = float(libpq_words(address)["connect_timeout"])
    faults: list[str] = []
    for host, port in address.hosts or ((None, None),):
        try:
            async with asyncio.timeout(seconds):
                return await _set_up(host, port, address, arguments)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as fault:
            faults.append(f"{type(fault).__name__}: {fault}")
        except asyncpg.InternalClientError as fault:
            faults.append(f"{type(fault).__name__}: {fault}")
    raise StorageUnavailable(f"no server takes writes: {'; '.join(faults)}")


def check_url(url: str) -> None:
    """Return where asyncpg supports everything in the URL; raises DatabaseUnsupported."""
    _arguments(read_url(url))


async def _set_up(
    host: str | None, port: int | None, address: PostgresqlUrl, arguments: dict[str, Any]
) -> ConfirmingConnection:
    async def begun(session: dict[str, str]) -> ConfirmingConnection:
        named = {**arguments["server_settings"], **session}
        words = {**arguments, "server_settings": named}
        connection: ConfirmingConnection = await asyncpg.connect(host=host or None, port=port, **words)
        return connection

    if address.pooler:  # it refuses most settings when a connection begins
        connection = await begun({})
        connection.is_pooled = address.is_pooled
        if not address.is_pooled:
            await _configure(connection)
        return connection
    connection = await begun(session_of(0))
    newer = session_of(connection.get_server_version().major)
    if newer != session_of(0):
        connection.terminate()
        connection = await begun(newer)
    return connection


async def _configure(connection: ConfirmingConnection) -> None:
    try:
        await connection.execute(configure(is_local=False))
    except BaseException:
        connection.terminate()
        raise


def _arguments(address: PostgresqlUrl) -> dict[str, Any]:
    """Arguments of asyncpg.connect, except host and port."""
    words = libpq_words(address)
    unknown = words.keys() - {*_SHARED, *_DISPENSABLE, "user", "password", "dbname", "host", "port", "options"}
    if unknown:
        raise DatabaseUnsupported(
            f"the database's URL asks for what asyncpg cannot do: {', '.join(sorted(unknown))}", param="database"
        )
    shared = {name: value for name, value in words.items() if name in _SHARED}
    named = {"application_name": words["application_name"]}
    if "options" in words:
        named["options"] = words["options"]
    return {
        "dsn": f"postgresql:///?{urlencode(shared)}" if shared else None,
        "user": address.user,
        "password": address.password,
        "database": address.database,
        "target_session_attrs": words.get("target_session_attrs", "any"),
        # Behind a pooler of transactions no statement is there twice, and a setting would be somebody else's too.
        "statement_cache_size": 0 if address.is_pooled else 100,
        "server_settings": named,
        "connection_class": ConfirmingConnection,
    }
