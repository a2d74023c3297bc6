"""Schema and failure on SQLite: migrations agree with the tables, history is append-only, trouble keeps nothing."""

import shutil
import sqlite3

import pytest
from sqlalchemy.exc import IntegrityError

from storage import engine, history, inbox, migrate, payments
from storage.engine import Database
from storage.errors import SchemaOutdated, StorageUnavailable
from storage.schema import metadata
from tests.builders import a_message, a_payment, moved_to_paid
from tests.fakes.clock import START


def path_of(database):
    return database.engine.url.database


def test_upgrading_twice_changes_nothing(database, tmp_path):
    """A repeat finds the newest schema; a new file, in a folder that is not there yet, gets the same."""
    fresh = Database(f"sqlite:///{tmp_path}/var/new/receipted.db")
    assert migrate.upgrade(fresh) == migrate.upgrade(fresh) == migrate.newest()
    migrate.check(fresh)

    assert migrate.drift(fresh) == migrate.drift(database) == []
    fresh.close()


def test_an_empty_file_is_outdated(tmp_path):
    """A program does not start on a database without its schema."""
    path = tmp_path / "empty.db"
    path.touch()
    empty = Database(f"sqlite:///{path}")
    with pytest.raises(SchemaOutdated):
        migrate.check(empty)
    empty.close()


def test_every_constraint_and_index_is_named(database):
    """A later migration can name what it changes, on every database."""
    for table in metadata.sorted_tables:
        assert all(constraint.name for constraint in table.constraints), table.name
        assert all(index.name for index in table.indexes), table.name
    with sqlite3.connect(path_of(database)) as raw:
        names = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")]
        for (sql,) in raw.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'"):
            for kind in ("PRIMARY KEY", "UNIQUE", "FOREIGN KEY"):
                assert sql.count(f" {kind} ") == sum(
                    line.strip().startswith("CONSTRAINT ") and f" {kind} " in line for line in sql.splitlines()
                ), sql
    raw.close()
    assert names


@pytest.mark.parametrize("change", ["UPDATE transition SET reason = 'x'", "DELETE FROM transition"])
def test_history_is_append_only(database, change):
    """The database itself refuses to change or delete a transition."""
    message, payment = a_message(), a_payment()
    with database.write() as unit:
        inbox.record(unit, [message])
        payments.add(unit, payment)
        moved_to_paid(unit, payment, message)
    with pytest.raises(IntegrityError, match="append-only"), database.write() as unit:
        unit._connection.exec_driver_sql(change)

    with database.read() as unit:
        assert [link.reason for link in history.of_payment(unit, payment.id)] == ["a test"]


def test_a_number_is_given_once(database):
    """Two workers that append the same link: the second fails, and history has no fork."""
    message, payment = a_message(), a_payment()
    with database.write() as unit:
        inbox.record(unit, [message])
        payments.add(unit, payment)

    def append(stale):
        with database.write() as unit:
            moved_to_paid(unit, stale, message)

    with database.read() as unit:
        one, two = (payments.get(unit, payment.id) for _ in range(2))
    append(one)
    with pytest.raises(IntegrityError):
        append(two)


def kept(path):
    with sqlite3.connect(path) as raw:
        found = raw.execute("SELECT count(*) FROM inbox_message").fetchone()[0]
    raw.close()
    return found


def test_a_read_only_file_is_unavailable_and_can_be_read(database):
    """Nothing is half written, and reading goes on."""
    record(database, b"{}")
    path = path_of(database)
    read_only = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StorageUnavailable):
        record(read_only, b"{}")
    with read_only.read() as unit:
        assert len(inbox.find(unit)) == 1
    read_only.close()

    assert kept(path) == 1


def test_a_locked_file_is_unavailable(template, tmp_path, monkeypatch):
    """Another process that holds the lock for too long is answered with 503, not with a hang."""
    monkeypatch.setattr(engine, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "locked.db"
    shutil.copyfile(template, path)
    database = Database(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable) as raised:
        record(database, b"a secret of the payer")
    other.execute("ROLLBACK")
    other.close()

    assert "secret" not in str(raised.value)
    assert kept(path) == 0
    record(database, b"{}")
    database.close()
    assert kept(path) == 1


def test_a_full_disk_is_unavailable_and_nothing_is_half_written(database):
    """A unit of work that does not fit is kept in no part, and the next one that fits is kept."""
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def bound(connection, _record, _proxy):
        connection.execute(f"PRAGMA max_page_count={pages + limit}")

    limit = 8
    engine.event.listen(database.engine, "checkout", bound)
    with pytest.raises(StorageUnavailable) as raised:
        record(database, b"small", b"x" * 200_000)

    assert "full" in raised.value.message
    assert kept(path_of(database)) == 0
    record(database, b"small")
    assert kept(path_of(database)) == 1


def test_a_folder_that_is_not_there_is_unavailable(tmp_path):
    """A path that cannot be opened is storage that is away."""
    nowhere = Database(f"sqlite:///{tmp_path}/not/there.db")
    with pytest.raises(StorageUnavailable), nowhere.read() as unit:
        inbox.find(unit)
    nowhere.close()


def test_times_without_a_zone_are_refused(database):
    """A naive time is a fault of the program, and is not stored."""
    with pytest.raises(Exception, match="without a zone"), database.write() as unit:
        payments.set_next_poll(unit, a_payment().id, START.replace(tzinfo=None))


def record(database, *bodies):
    with database.write() as unit:
        for body in bodies:
            inbox.record(unit, [a_message(body=body)])
