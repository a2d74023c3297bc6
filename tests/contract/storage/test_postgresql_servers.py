"""What a connection to PostgreSQL promises beyond the driver's own: an end to all waiting, and commits that stand."""

import asyncio
import socket
import threading

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa

from storage import connections
from storage.asyncpg_connection import connect, is_lost
from storage.database import Database
from storage.errors import DatabaseUnsupported, StorageUnavailable
from tests.support.cluster import running
from tests.support.pgbouncer import pooling
from tests.support.waiting import DEADLINE_S, until


@pytest.fixture
def database(postgresql):
    """A database of its own."""
    opened = postgresql.copy()
    yield opened
    postgresql.drop(opened)


def asked(database, statement, *, kind="write", **words):
    with getattr(database, kind)() as unit:
        return unit.execute(sa.text(statement), words).scalar()


def test_an_answer_that_does_not_come_is_not_waited_for(database, monkeypatch):
    """The unit of work ends, its session is freed, and the next one has a new connection."""
    monkeypatch.setitem(connections._ANSWER_TIMEOUTS_S, "write", 0.2)
    with pytest.raises(StorageUnavailable, match=r"no answer within 0\.2 s"):
        asked(database, "SELECT pg_sleep(600)")
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    until(lambda: asked(database, sleeping, kind="read") == 0, DEADLINE_S, lambda: "the session sleeps on")


def test_a_reader_is_given_longer(database, monkeypatch):
    """What reads may take its time, and a connection does not stay patient."""
    monkeypatch.setitem(connections._ANSWER_TIMEOUTS_S, "write", 0.2)
    assert asked(database, "SELECT 1 FROM pg_sleep(0.5)", kind="read") == 1
    with pytest.raises(StorageUnavailable, match="no answer"):
        asked(database, "SELECT pg_sleep(60)")


def test_a_server_that_takes_no_writes_any_more_is_left(database):
    """Not one of the connections that were made to it is used again."""
    with database.engine.connect() as one, database.engine.connect() as other:  # two in the pool
        pids = {each.exec_driver_sql("SELECT pg_backend_pid()").scalar() for each in (one, other)}
        for each in (one, other):
            each.exec_driver_sql("SET default_transaction_read_only = on")  # as of a server that was demoted
            each.commit()
    with pytest.raises(StorageUnavailable, match="ReadOnlySqlTransaction"):
        asked(database, "DELETE FROM inbox_message RETURNING id")
    assert asked(database, "SELECT pg_backend_pid()") not in pids
    assert asked(database, "DELETE FROM inbox_message RETURNING id") is None


def test_a_reader_that_writes_costs_nobody_a_connection(database):
    """It is a fault of the program, and the server is as good as before."""
    pid = asked(database, "SELECT pg_backend_pid()")
    with pytest.raises(StorageUnavailable, match="ReadOnlySqlTransaction"):
        asked(database, "DELETE FROM inbox_message", kind="read")
    assert asked(database, "SELECT pg_backend_pid()") == pid


@pytest.fixture(scope="module")
def unconfirmed():
    """A server whose commits wait for a standby that there is not; and what ends such a wait."""
    with running(more="synchronous_standby_names = 'nobody'") as cluster:
        waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

        def end_waiting(how):
            until(lambda: bool(cluster.primary.execute(f"SELECT 1 {waiting}")), DEADLINE_S, lambda: "nobody waits")
            cluster.primary.execute(f"SELECT {how}(pid) {waiting}")

        cluster.primary.execute("ALTER DATABASE receipted SET synchronous_commit = local")
        with psycopg.connect(cluster.primary.url("receipted"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (word text)")
        yield cluster.primary.url("receipted"), end_waiting


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_commit_that_no_standby_confirmed_is_none(unconfirmed, how):
    """PostgreSQL calls a cancelled commit a success, with a warning; the unit of work does not."""
    url, end_waiting = unconfirmed
    database = Database(url)
    operator = threading.Thread(target=end_waiting, args=(how,))
    operator.start()
    with pytest.raises(StorageUnavailable):
        asked(database, "INSERT INTO kept VALUES (:word) RETURNING 1", word=how)
    operator.join()
    kept = asked(database, "SELECT count(*) FROM kept WHERE word = :word", kind="read", word=how)
    assert kept == 1, "it is there, on one server alone"
    database.close()


def test_asyncpg_counts_the_warning_of_such_a_commit(unconfirmed):
    """Before the statement has returned, so that the caller can tell."""
    url, end_waiting = unconfirmed

    async def played():
        connection = await connect(url)
        before = connection.warnings
        ending = asyncio.create_task(asyncio.to_thread(end_waiting, "pg_cancel_backend"))
        await connection.execute("INSERT INTO kept VALUES ($1)", "x")
        warnings = connection.warnings
        await ending
        connection.terminate()
        return warnings - before

    assert asyncio.run(played()) == 1


@pytest.mark.slow
def test_asyncpg_finds_the_server_that_takes_writes():
    """Whatever stands before it: nobody, a server that only reads, one that accepts and says nothing."""

    async def played(cluster):
        with socket.create_server(("127.0.0.1", 0)) as silent:  # the system accepts, and nobody reads
            before = f"127.0.0.1:1,{cluster.standby.hostport},127.0.0.1:{silent.getsockname()[1]}"
            connection = await connect(f"postgresql://postgres@{before},{cluster.primary.hostport}/receipted")
        found = await connection.fetchval("SHOW port")
        names = ("synchronous_commit", "lock_timeout", "transaction_isolation")
        settings = [await connection.fetchval(f"SHOW {name}") for name in names]
        connection.terminate()
        with pytest.raises(StorageUnavailable, match="no server takes writes"):
            await connect(f"postgresql://postgres@127.0.0.1:1,{cluster.standby.hostport}/receipted")
        with pytest.raises(DatabaseUnsupported, match="channel_binding"):
            await connect(f"postgresql://postgres@{cluster.primary.hostport}/receipted?channel_binding=require")
        return found, settings

    with running() as cluster:
        cluster.replicate()
        found, settings = asyncio.run(played(cluster))
        assert found == str(cluster.primary.port)
        assert settings == ["on", "5s", "read committed"]
        database = Database(
            f"postgresql://postgres@127.0.0.1:1,{cluster.standby.hostport},{cluster.primary.hostport}/receipted"
        )
        assert asked(database, "SHOW port") == str(cluster.primary.port)
        database.close()


def test_asyncpg_says_which_connection_is_lost(database):
    """One that was ended, or whose server only reads, is not used again; one whose statement was wrong is."""
    refusals = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

    async def fault_of(connection, statement):
        with pytest.raises(refusals) as raised:  # which of them depends on when the server's end is read
            await connection.fetchval(statement)
        return raised.value

    async def played():
        connection, other = await connect(database.url), await connect(database.url)
        try:
            wrong = await fault_of(connection, "SELECT 1/0")
            await connection.execute("SET default_transaction_read_only = on")
            moved = await fault_of(connection, "DELETE FROM inbox_message")
            await other.execute(f"SELECT pg_terminate_backend({connection.get_server_pid()}, 5000)")
            ended = await fault_of(connection, "SELECT 1")
        finally:
            connection.terminate()
            other.terminate()
        return [is_lost(fault) for fault in (wrong, moved, ended)]

    assert asyncio.run(played()) == [False, True, True]


def test_behind_a_pooler_of_transactions_nothing_is_left_in_a_session():
    """Settings are the transaction's own, statements are not prepared, and whoever comes next finds a bare session."""
    with running() as cluster, pooling(cluster.primary, sessions=2) as port:
        pooled = Database(f"postgresql://postgres@127.0.0.1:{port}/receipted?pooler=transaction")
        for _ in range(12):  # psycopg prepares a statement at its sixth time
            assert asked(pooled, "SELECT current_setting('lock_timeout')") == "5s"
            with pooled.engine.connect() as held:  # so that sessions change hands
                held.exec_driver_sql("SELECT 1")
                assert asked(pooled, "SELECT current_setting('synchronous_commit')") == "on"
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/receipted") as bare:
            assert bare.execute("SHOW lock_timeout").fetchone() == ("0",)
            assert bare.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            bare.rollback()
        pooled.close()


def test_behind_a_pooler_asyncpg_has_our_settings_for_one_transaction():
    """Whatever the role's are and others left in the session; and no statement is looked for that is not there."""
    asked_for = "SELECT current_setting('synchronous_commit') || current_setting('lock_timeout') || $1::text"

    async def played(url):
        connection = await connect(url)
        for number in range(12):
            async with connection.configured():
                assert await connection.fetchval(asked_for, str(number)) == f"on5s{number}"
        left = await connection.fetchval("SHOW synchronous_commit")
        connection.terminate()
        return left

    with running() as cluster:
        cluster.primary.execute("ALTER DATABASE receipted SET synchronous_commit = off")
        with pooling(cluster.primary) as port:
            url = f"postgresql://postgres@127.0.0.1:{port}/receipted?pooler=transaction"
            assert asyncio.run(played(url)) == "off"


def test_behind_a_pooler_of_sessions_both_drivers_have_our_settings():
    """It refuses most of them when a connection begins, so that they are the first statement there."""
    query = "SELECT name, setting, source FROM pg_settings WHERE name = 'synchronous_commit'"

    async def played(url):
        connection = await connect(url)
        try:
            return tuple(await connection.fetchrow(query))
        finally:
            connection.terminate()

    with running() as cluster:
        cluster.primary.execute("ALTER DATABASE receipted SET synchronous_commit = off")
        with pooling(cluster.primary, mode="session") as port:
            url = f"postgresql://postgres@127.0.0.1:{port}/receipted?pooler=session"
            pooled = Database(url)
            with pooled.read() as unit:
                assert tuple(unit.execute(sa.text(query)).one()) == ("synchronous_commit", "on", "session")
            pooled.close()
            assert asyncio.run(played(url)) == ("synchronous_commit", "on", "session")


def test_what_another_committed_is_confirmed_by_a_commit_of_ours(unconfirmed):
    """Whoever only finds it there waits for the standby all the same."""
    url, end_waiting = unconfirmed

    async def played():
        connection = await connect(url)
        ending = asyncio.create_task(asyncio.to_thread(end_waiting, "pg_cancel_backend"))
        await connection.confirm()
        await ending
        warnings = connection.warnings
        connection.terminate()
        return warnings

    assert asyncio.run(played()) == 1


def test_a_row_on_its_way_to_a_partition_that_has_moved_is_to_be_tried_again(database):
    """PostgreSQL calls it a violated check; a check of ours is still a fault of the row."""
    with database.write() as unit:
        unit.execute(sa.text("CREATE TABLE cut (a int CONSTRAINT small CHECK (a < 100)) PARTITION BY RANGE (a)"))
        unit.execute(sa.text("CREATE TABLE cut_low PARTITION OF cut FOR VALUES FROM (0) TO (10)"))
    with pytest.raises(StorageUnavailable, match="a partition was made"):
        asked(database, "INSERT INTO cut_low VALUES (50) RETURNING a")
    with pytest.raises(sa.exc.IntegrityError):
        asked(database, "INSERT INTO cut_low VALUES (500) RETURNING a")
