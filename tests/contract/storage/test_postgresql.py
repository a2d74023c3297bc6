"""What can go wrong with PostgreSQL alone: locks, deadlocks, lost connections, a full pool. All of it is a 503."""

import threading

import pytest
import sqlalchemy as sa

from storage import connections, inbox, migrate
from storage.database import Database, translated
from storage.errors import StorageUnavailable
from tests.support.builders import a_message


@pytest.fixture
def database(postgresql):
    """A database of its own."""
    opened = postgresql.copy()
    yield opened
    postgresql.drop(opened)


@pytest.fixture
def account(database):
    """An account's row to lock."""
    _run(database, "INSERT INTO account_budget (account, next_free_at) VALUES ('a', now()), ('b', now())")


def _run(database, *statements):
    with database.write() as unit:
        return [unit.execute(sa.text(statement)) for statement in statements]


def shown(database, name, *, read=False):
    with (database.read if read else database.write)() as unit:
        return unit.execute(sa.text(f"SHOW {name}")).scalar()


def test_a_user_writes_no_driver(database):
    """postgresql:// is enough, and postgres:// too."""
    assert database.url.startswith("postgresql://")
    other = Database(database.url.replace("postgresql://", "postgres://"))
    migrate.check(other)
    other.close()


def test_every_connection_is_set_up_to_keep_what_it_commits(database, postgresql):
    """Whatever the role's defaults are: the disk is waited for, locks and idle transactions are not, for ever."""
    with database.engine.connect() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar()
    for setting in ("synchronous_commit = off", "lock_timeout = 0", "default_transaction_isolation = serializable"):
        postgresql.execute(f"ALTER DATABASE {name} SET {setting}")
    fresh = Database(database.url)

    assert shown(fresh, "synchronous_commit") == "on"
    assert shown(fresh, "lock_timeout") == "5s"
    assert shown(fresh, "idle_in_transaction_session_timeout") == "15s"
    assert (shown(fresh, "transaction_isolation"), shown(fresh, "transaction_read_only")) == ("read committed", "off")
    assert shown(fresh, "transaction_isolation", read=True) == "repeatable read"
    assert shown(fresh, "transaction_read_only", read=True) == "on"
    assert shown(fresh, "transaction_read_only") == "off", "a connection does not stay a reader's"
    fresh.close()


def test_a_reader_that_writes_is_refused(database):
    """`read()` must not write, and PostgreSQL sees to it."""
    with pytest.raises(StorageUnavailable), database.read() as unit:
        inbox.record(unit, [a_message()])


def test_a_row_that_is_locked_for_too_long_is_unavailable(database, account, monkeypatch):
    """Another process that holds a row is answered with 503, not with a hang."""
    monkeypatch.setitem(connections.SESSION, "lock_timeout", "50ms")
    hasty = Database(database.url)
    with database.write() as unit:
        unit.execute(sa.text("SELECT 1 FROM account_budget WHERE account = 'a' FOR UPDATE"))
        with pytest.raises(StorageUnavailable, match="LockNotAvailable"):
            _run(hasty, "UPDATE account_budget SET failures = 1 WHERE account = 'a'")
    hasty.close()


def test_of_two_that_wait_for_each_other_one_is_unavailable(database, account):
    """A deadlock ends one unit of work, and the other is kept."""
    met, ends = threading.Barrier(2), []
    change = sa.text("UPDATE account_budget SET failures = failures + 1 WHERE account = :account")

    def cross(first, second):
        try:
            with database.write() as unit:
                unit.execute(change, {"account": first})
                met.wait()
                unit.execute(change, {"account": second})
            ends.append("kept")
        except StorageUnavailable as unavailable:
            ends.append(unavailable.message)

    threads = [threading.Thread(target=cross, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ends) == 2
    assert "kept" in ends
    assert any("deadlock" in end for end in ends)


def test_a_serialization_failure_is_unavailable(database, account):
    """Whoever asked for a stricter isolation and lost comes again, like everybody else."""

    def lose():
        with database.write() as unit:
            unit.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            unit.execute(sa.text("SELECT 1 FROM account_budget"))
            _run(database, "UPDATE account_budget SET failures = 1")
            unit.execute(sa.text("UPDATE account_budget SET failures = 2"))

    with pytest.raises(StorageUnavailable, match="SerializationFailure"):
        lose()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_connection_that_is_lost_is_unavailable_and_the_next_is_new(database, postgresql, kind):
    """What was under way is not kept, and nobody has to start the process again."""

    def be_cut_off():
        with getattr(database, kind)() as unit:
            pid = unit.execute(sa.text("SELECT pg_backend_pid()")).scalar()
            if kind == "write":
                inbox.record(unit, [a_message()])
            postgresql.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            unit.execute(sa.text("SELECT 1"))

    with pytest.raises(StorageUnavailable):
        be_cut_off()
    with database.read() as unit:
        assert inbox.find(unit) == []


def test_a_connection_that_was_lost_while_it_lay_idle_is_noticed_before_it_is_used(database, postgresql):
    """A server that was started anew costs nobody a unit of work."""
    with database.read() as unit:
        pid = unit.execute(sa.text("SELECT pg_backend_pid()")).scalar()
    postgresql.execute(f"SELECT pg_terminate_backend({pid}, 5000)")

    with database.write() as unit:
        inbox.record(unit, [a_message()])


def test_a_pool_without_a_free_connection_is_unavailable(database, monkeypatch):
    """More units of work at once than connections: the last is answered with 503 after a while."""
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)
    small = Database(database.url)
    held = [small.engine.connect() for _ in range(15)]
    with pytest.raises(StorageUnavailable, match="every connection"), small.read() as unit:
        inbox.find(unit)
    for connection in held:
        connection.close()
    small.close()


def test_a_server_that_is_not_there_is_unavailable_and_its_password_is_not_told():
    """The settings' URL stays out of the error."""
    away = Database("postgresql://receipted:secret@127.0.0.1:1/receipted")
    with pytest.raises(StorageUnavailable) as raised, away.write():
        pass
    away.close()

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("pooler", ["", "?pooler=transaction"])
def test_a_session_that_ends_just_before_a_unit_of_work_begins_is_storage_that_is_away(database, pooler):
    """What is said to a connection at the beginning fails as any other statement does: loops wait, and do not end."""
    pooled = Database(f"{database.url}{pooler.replace('?', '&') if '?' in database.url else pooler}")
    try:
        with pooled.engine.connect() as connection:  # it answered when it was taken
            _run(database, f"SELECT pg_terminate_backend({connection.connection.driver_connection.info.backend_pid})")
            with pytest.raises(StorageUnavailable), translated(), connection.begin():
                connection.exec_driver_sql("SELECT 1")
    finally:
        pooled.close()


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 3), (3600.0, 1)])
def test_plans_are_made_anew_now_and_then(database, monkeypatch, seconds, times):
    """By each connection, whatever it is used for; in between they are kept."""
    monkeypatch.setattr(connections, "_PLANNED_FOR", seconds)
    said = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda _c, _k, statement, *_: said.append(statement))
    for read in (False, True, False):
        assert shown(database, "enable_seqscan", read=read) == "off"

    assert said.count("DISCARD PLANS") == times
