"""Schema on every database: migrations agree with the tables, keep every row, and history is append-only."""

import threading
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from storage import inbox, migrate, operator_actions, outbox, payment_polls, payments, transitions
from storage.columns import views
from storage.database import Database
from storage.errors import DatabaseUnsupported, SchemaOutdated
from storage.ids import new_id
from storage.schema import metadata
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.drift import drift
from tests.support.rows import add_owed, an_effect


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path):
    """A database without tables; on SQLite in a folder that is not there yet."""
    if request.param == "sqlite":
        opened = Database(f"sqlite:///{tmp_path}/var/new/receipted.db")
        yield opened
        opened.close()
        return
    server = request.getfixturevalue("postgresql")
    opened = Database(server.url_of(server.empty()))
    yield opened
    server.drop(opened)


def test_upgrading_twice_changes_nothing(empty):
    """A repeat finds the newest schema, and the tables are what the migrations make."""
    assert migrate.upgrade(empty) == migrate.upgrade(empty) == migrate.newest()
    migrate.check(empty)

    assert drift(empty) == []


def test_processes_that_migrate_at_once_do_it_once(empty):
    """One migrates, the others wait for it: none fails, and none does anything twice."""
    (path := migrate._file(empty)) and path.parent.mkdir(parents=True)
    pools, gate, found = [Database(empty.url) for _ in range(4)], threading.Barrier(4), []

    def start(opened):
        gate.wait()
        found.append(migrate.upgrade(opened))

    threads = [threading.Thread(target=start, args=(opened,)) for opened in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in pools:
        opened.close()

    assert found == [migrate.newest()] * 4
    assert drift(empty) == []


def test_a_migration_that_fails_leaves_the_schema_as_it_was(tmp_path, second_migration):
    """On SQLite all migrations are one transaction: a crash in the middle is a crash before the first."""
    empty = Database(f"sqlite:///{tmp_path}/receipted.db")

    def crash(_connection, _cursor, statement, *_rest):
        if "ix_payment_label" in statement:
            raise KeyboardInterrupt

    sa.event.listen(empty.engine, "before_cursor_execute", crash)
    with pytest.raises(KeyboardInterrupt):
        migrate.upgrade(empty)
    assert (migrate.current(empty), sa.inspect(empty.engine).get_table_names()) == (None, [])

    sa.event.remove(empty.engine, "before_cursor_execute", crash)
    assert migrate.upgrade(empty) == "0011"
    empty.close()


_AGAINST_HISTORY = (
    "UPDATE transition SET payment_id = '00000000-0000-0000-0000-0000000000bb'",
    "DELETE FROM transition",
)


def test_an_upgrade_keeps_every_row(empty, request):
    """A database with rows everywhere has them all after a second migration, and history is still closed."""
    migrate.upgrade(empty)
    filled = _fill(empty)
    assert filled.keys() == {table.name for table in metadata.sorted_tables}
    request.getfixturevalue("second_migration")
    assert [each.revision for each in migrate.pending(empty)] == ["0011"]
    migrate.upgrade(empty)

    assert migrate.current(empty) == "0011"
    assert {name: _rows(empty, name, columns=rows[0].keys()) for name, rows in filled.items()} == filled
    for wrong in _AGAINST_HISTORY:
        with pytest.raises(IntegrityError, match="append-only"), empty.write() as unit:
            unit.execute(sa.text(wrong))


@pytest.mark.parametrize("revision", ["0009", "0001", "0999"])
def test_a_database_of_an_unknown_revision_is_refused(empty, revision):
    """Of before the first release or of a newer version: nothing is migrated, and the reason is said plainly."""
    migrate.upgrade(empty)
    with empty.write() as unit:
        unit.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})

    for refused in (migrate.upgrade, migrate.check, migrate.pending):
        with pytest.raises(SchemaOutdated, match=f"at revision {revision}, which this program does not know"):
            refused(empty)
    assert migrate.current(empty) == revision


def test_an_empty_database_is_outdated(empty, tmp_path):
    """A program does not start on a database without its schema."""
    (tmp_path / "var" / "new").mkdir(parents=True)
    with pytest.raises(SchemaOutdated):
        migrate.check(empty)


def test_every_constraint_and_index_is_named(database):
    """A later migration can name what it changes, on every database."""
    for table in metadata.sorted_tables:
        assert all(constraint.name for constraint in table.constraints), table.name
        assert all(index.name for index in table.indexes), table.name
    found = sa.inspect(database.engine)
    for table in metadata.sorted_tables:
        assert found.get_pk_constraint(table.name)["name"] == table.primary_key.name
        assert {key["name"] for key in found.get_foreign_keys(table.name)} == {
            key.name for key in table.foreign_key_constraints
        }
        indexes = {key["name"] for key in (*found.get_indexes(table.name), *found.get_unique_constraints(table.name))}
        assert indexes == {
            *(index.name for index in table.indexes),
            *(key.name for key in table.constraints if isinstance(key, sa.UniqueConstraint)),
        }


@pytest.mark.parametrize("change", ["UPDATE transition SET reason = 'x'", "DELETE FROM transition"])
def test_history_is_append_only(database, change):
    """The database itself refuses to change or delete a transition."""
    message, payment = a_message(), a_payment()
    with database.write() as unit:
        inbox.record(unit, [message])
        keeping.keep(unit, payment)
        keeping.moved_to_paid(unit, payment, message)
    with pytest.raises(IntegrityError, match="append-only"), database.write() as unit:
        unit._connection.exec_driver_sql(change)

    with database.read() as unit:
        assert [link.reason for link in transitions.of_payment(unit, payment.id)] == ["a test"]


@pytest.mark.parametrize("change", ["UPDATE operator_action SET reason = 'x'", "DELETE FROM operator_action"])
def test_what_people_did_is_append_only(database, change):
    """The database itself refuses to change or delete it."""
    with database.write() as unit:
        operator_actions.note(
            unit, account=None, at=START, actor="ada", action="replay", subject="m1", reason="was mended"
        )
    with pytest.raises(IntegrityError, match="append-only"), database.write() as unit:
        unit._connection.exec_driver_sql(change)

    with database.read() as unit:
        assert [done.reason for done in operator_actions.of_subjects(unit, ["m1"])] == ["was mended"]


@pytest.mark.parametrize("verb", ["UPDATE {} SET seal = 'x'", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["outbox_message", "outbox_delivered"])
def test_what_is_owed_and_was_delivered_is_append_only(database, verb, table):
    """The database itself refuses to change or delete it."""
    effects = [an_effect(id=new_id(), status="delivered"), an_effect(id=new_id())]
    with database.write() as unit:
        add_owed(unit, effects)
    with pytest.raises(IntegrityError, match="append-only"), database.write() as unit:
        unit._connection.exec_driver_sql(verb.format(table))

    with database.read() as unit:
        assert {each.id: each.status for each in outbox.find(unit)} == {each.id: each.status for each in effects}


def test_views_have_the_columns_that_are_declared(database):
    """What is read of a view is there, on both databases."""
    found = sa.inspect(database.engine)
    assert set(found.get_view_names()) == set(views.tables)
    for name, view in views.tables.items():
        assert {column["name"] for column in found.get_columns(name)} == set(view.c.keys())


def test_a_number_is_given_once(database):
    """Two workers that append the same link: the second fails, and history has no fork."""
    message, payment = a_message(), a_payment()
    with database.write() as unit:
        inbox.record(unit, [message])
        keeping.keep(unit, payment)

    def append(stale):
        with database.write() as unit:
            keeping.moved_to_paid(unit, stale, message)

    with database.read() as unit:
        one, two = (payments.get(unit, payment.id) for _ in range(2))
    append(one)
    with pytest.raises(IntegrityError):
        append(two)


def test_times_without_a_zone_are_refused(database):
    """A naive time is a fault of the program, and is not stored."""
    with pytest.raises(Exception, match="without a zone"), database.write() as unit:
        payment_polls.set_next(unit, a_payment().id, START.replace(tzinfo=None))


def test_an_instant_comes_back_as_it_went_in(database):
    """To the microsecond, in UTC, whatever zone it was said in."""
    payment = a_payment(changed_at=START + timedelta(microseconds=123_457))
    with database.write() as unit:
        keeping.keep(unit, payment)
    with database.read() as unit:
        found = payments.get(unit, payment.id).changed_at

    assert (found, found.tzinfo) == (payment.changed_at, UTC)


@pytest.mark.parametrize("url", ["mysql://h/db", "postgresql+asyncpg://h/db", "nonsense", "sqlite+aiosqlite:///x", ""])
def test_another_kind_of_database_is_refused(url):
    """A URL that cannot work is refused when it is given, without repeating what it says."""
    with pytest.raises(DatabaseUnsupported) as raised:
        Database(url)
    assert "://h" not in str(raised.value)


def _reflected(database, name):
    return sa.Table(name, sa.MetaData(), autoload_with=database.engine, resolve_fks=False)


def _fill(database, rows=3):
    """Three rows in each table, each with a value in every column; what they are by table, as `_rows` has it."""
    declared = {table.name: table for table in metadata.sorted_tables}
    found = sa.inspect(database.engine).get_sorted_table_and_fkc_names()  # what is pointed to comes first
    ordered = [name for name, _keys in found if name in declared]
    with database.write() as unit:
        for name in ordered:
            table = _reflected(database, name)
            for number in range(rows):
                unit.execute(sa.insert(table), {c.name: _value(declared[name], c, number) for c in table.columns})
    return {name: _rows(database, name) for name in ordered}


def _value(declared, column, number):
    """A value that fits the column: the n-th of a kind, and the n-th row's id wherever an id is meant."""
    kind = declared.c[column.name].type if column.name in declared.c else column.type
    if isinstance(kind, sa.Uuid):
        return str(UUID(int=number + 1)) if column.type.python_type is UUID else UUID(int=number + 1).hex
    if column.type.python_type is datetime:
        return datetime(2026, 1, 1 + number, tzinfo=UTC if getattr(column.type, "timezone", False) else None)
    if column.type.python_type is date:
        return date(2026, 1, 1 + number)
    if column.type.python_type is str:
        return f"{column.name}{number}"[-(getattr(column.type, "length", None) or 99) :]
    values = {int: number + 1, float: 0.5 + number, bool: number == 0, bytes: bytes([0, 255, number])}
    return values.get(column.type.python_type, {"n": [number]})


def _rows(database, name, columns=None):
    """Every row of a table, as far as these columns go."""
    table = _reflected(database, name)
    wanted = sorted(columns or table.c.keys())
    with database.read() as unit:
        rows = unit.execute(sa.select(*(table.c[column] for column in wanted))).all()
    return sorted((dict(zip(wanted, row, strict=True)) for row in rows), key=str)
