"""A migration of PostgreSQL runs beside the service, and continues wherever it was killed."""

import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import IntegrityError

from storage import migrate, online_migration, partitions
from storage.database import Database
from tests.support.waiting import DEADLINE_S, until

pytestmark = pytest.mark.usefixtures("second_migration")

ROWS = 30

FILL = (
    """
    INSERT INTO payment (id, account, kind, provider_ref, reference, phase, version, head_hash, reviews, facts,
        created_at, changed_at, seal)
    SELECT uuidv7(), 'acme', 'payin', 'pi_' || g, 'order-' || g, 'paid', 1, 'h', 0, '{{}}', now(), now(), ''
    FROM generate_series(1, {rows}) AS g
    """,
    """
    INSERT INTO inbox_message (id, account, source, delivery_key, body, headers, digest, envelope_digest, received_at,
        ref)
    SELECT uuidv7(), account, 'webhook', provider_ref, convert_to(repeat('x', 400), 'UTF8'), '[]', md5(provider_ref),
        '', now(), provider_ref
    FROM payment
    """,
)


def filled(postgresql, rows):
    """A database of the first schema with so many payments and messages, in the default partition and two others."""
    database = postgresql.copy()
    # As installed: longer than a step waits for its locks, so that the step is the one that gives way.
    postgresql.execute(f"ALTER DATABASE {make_url(database.url).database} SET deadlock_timeout = '1s'")
    opened = Database(database.url)
    with opened.engine.connect() as connection:
        writing = connection.execution_options(receipted_write=True, receipted_patience=None)
        with writing.begin():
            for statement in FILL:
                writing.exec_driver_sql(statement.format(rows=rows))
    database.close()
    partitions.keep_ahead(opened, datetime(2030, 1, 1, tzinfo=UTC), partitions.Period.MONTH, ahead=1)
    return opened


class Killed(BaseException):
    """What no program catches."""


@pytest.fixture
def old(postgresql, monkeypatch):
    """A database of the revision before, with rows."""
    monkeypatch.setattr(online_migration, "BATCH_SIZE", 7)  # so that there are several
    database = filled(postgresql, ROWS)
    yield database
    postgresql.drop(database)


def assert_migrated(database, rows=ROWS):
    """Nothing is missing: every row is there and labelled, both indexes are complete, and no step is left behind."""
    assert migrate.current(database) == "0011"
    with database.read() as unit:
        assert unit.rows("SELECT count(*), count(*) FILTER (WHERE label = reference) FROM payment") == [(rows, rows)]
        assert unit.rows("SELECT count(*) FROM inbox_message") == [(rows,)]
        indexes = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid = ANY(%s::regclass[])"
        assert unit.rows(indexes, (["ix_payment_label", "ix_inbox_message_ref"],)) == [(2,)]
        assert unit.rows("SELECT to_regclass('migration_step')::text") == [(None,)]


@contextmanager
def killed_before(database, number):
    """Whoever uses this pool dies before its n-th statement; gives a list of the statements that were begun."""
    begun = []

    def count(_connection, _cursor, statement, *_rest):
        begun.append(statement)
        if len(begun) == number:
            raise Killed

    event.listen(database.engine, "before_cursor_execute", count)
    yield begun
    event.remove(database.engine, "before_cursor_execute", count)


def upgraded_after_a_kill(database, number):
    """Whether there was a statement to be killed before; the upgrade is whole either way."""
    victim = Database(database.url)
    with killed_before(victim, number) as begun, suppress(Killed):
        migrate.upgrade(victim)
    victim.close()
    migrate.upgrade(database)
    return len(begun) >= number


@pytest.mark.parametrize("number", [20, 30, 45, 60, 75])
def test_a_migration_that_was_killed_goes_on(old, number):
    """Killed before a statement, run again: nothing is missing, and the schema is the newest."""
    assert upgraded_after_a_kill(old, number)

    assert_migrated(old)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_migration_may_be_killed_at_any_statement(postgresql, monkeypatch):
    """Before every one of its statements in turn."""
    monkeypatch.setattr(online_migration, "BATCH_SIZE", 20)
    template = filled(postgresql, ROWS)
    template.close()
    name = make_url(template.url).database
    number = 0
    is_killed = True
    while is_killed:
        number += 1
        database = Database(postgresql.url_of(postgresql._create(name)))
        is_killed = upgraded_after_a_kill(database, number)
        assert_migrated(database)
        postgresql.drop(database)
    postgresql.drop(template)

    assert number > 70


def test_an_index_that_was_left_half_built_is_built_again(old, monkeypatch):
    """A server that dies while it builds an index leaves an invalid one under the name that is wanted."""
    create_index, broken = online_migration.OnlineSteps.create_index, []

    def after_a_crash(self, name, definition):
        with old.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            table = definition.partition(" ON ")[2].partition(" ")[0]
            few = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 2) AS few"  # noqa: S608 - our own names
            if connection.exec_driver_sql(few).scalar_one() < 2:  # nothing is in it that could fail to be unique
                create_index(self, name, definition)
                return
            with pytest.raises(IntegrityError):  # not unique, and what was begun stays
                connection.exec_driver_sql(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} ((1))")
        broken.append(name)
        create_index(self, name, definition)

    monkeypatch.setattr(online_migration.OnlineSteps, "create_index", after_a_crash)
    migrate.upgrade(old)

    assert broken == ["ix_payment_label", "inbox_message_rest_ref"]
    assert_migrated(old)


def test_a_partition_made_amid_the_building_of_an_index_has_it_too(old, monkeypatch):
    """The index of a partitioned table is on every partition at the end, also on those that others made meanwhile."""
    create_index = online_migration.OnlineSteps.create_index

    def with_another_partition(self, name, definition):
        if name == "inbox_message_rest_ref":
            partitions.keep_ahead(old, datetime(2031, 1, 1, tzinfo=UTC), partitions.Period.MONTH, ahead=0)
        create_index(self, name, definition)

    monkeypatch.setattr(online_migration.OnlineSteps, "create_index", with_another_partition)
    migrate.upgrade(old)
    partitions.keep_ahead(old, datetime(2032, 1, 1, tzinfo=UTC), partitions.Period.MONTH, ahead=0)

    with old.read() as unit:
        query = "SELECT indrelid::regclass::text FROM pg_index WHERE indisvalid AND pg_get_expr(indpred, indrelid) "
        found = set(unit.execute(text(f"{query} LIKE '%ref)%'")).scalars())
        parts = {part.name for part in partitions.existing(unit, "inbox_message")}
    assert {"inbox_message_p20300101", "inbox_message_p20310101", "inbox_message_p20320101"} <= parts
    assert found == {"inbox_message", "inbox_message_rest", *parts}
    assert_migrated(old)


def test_who_waits_for_a_migration_does_not_hold_it_up(old):
    """Building an index waits for every query that runs, so a second process asks instead of waiting."""
    pools, found = [Database(old.url) for _ in range(3)], []
    threads = [threading.Thread(target=lambda opened=each: found.append(migrate.upgrade(opened))) for each in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    for opened in pools:
        opened.close()

    assert found == ["0011"] * 3
    assert_migrated(old)


def test_a_step_gives_up_where_its_table_is_in_use_for_too_long(old, monkeypatch):
    """It says which step, and the next migration goes on from there."""
    monkeypatch.setattr(online_migration, "LOCK_DEADLINE_S", 0)
    with old.engine.connect() as reader, reader.begin():
        reader.exec_driver_sql("SELECT count(*) FROM payment")
        with pytest.raises(online_migration.StorageUnavailable, match="'label' found its tables in use for 0 s"):
            migrate.upgrade(old)
    migrate.upgrade(old)

    assert_migrated(old)


class Traffic:
    """Writes and reads as the program of the revision before; remembers how long each unit of work took."""

    def __init__(self, database, name):
        self._name = name
        self._database = Database(database.url)
        self._stop = threading.Event()
        self.waits, self.recorded = [], 0
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self.thread.join()
        self._database.close()

    def _run(self):
        while not self._stop.is_set():
            began = time.monotonic()
            with self._database.write() as unit:
                key = f"{self._name} {self.recorded}"
                unit.execute(text(PAYMENT), {"key": key})
                unit.execute(text(MESSAGE), {"key": key})
                unit.execute(text("SELECT count(*) FROM payment WHERE provider_ref = :key"), {"key": key})
            self.recorded += 1
            self.waits.append(time.monotonic() - began)
            self._stop.wait(0.01)


MESSAGE = (
    "INSERT INTO inbox_message (id, account, source, delivery_key, body, headers, digest, envelope_digest,"
    " received_at) VALUES (uuidv7(), 'acme', 'webhook', :key, '', '[]', '', '', now()) "
)
PAYMENT = (
    "INSERT INTO payment (id, account, kind, provider_ref, reference, phase, version, head_hash, reviews, facts,"
    " created_at, changed_at, seal) VALUES (uuidv7(), 'acme', 'payin', :key, :key, 'paid', 1, '', 0, '{}', now(),"
    " now(), '')"
)


def upgraded_under_traffic(old, rows):
    """Seconds of the upgrade, and every wait of two who write and read meanwhile, in order of length."""
    with Traffic(old, "one") as one, Traffic(old, "two") as two:
        until(lambda: one.recorded > 3 and two.recorded > 3, DEADLINE_S, lambda: "nobody writes")
        began = time.monotonic()
        migrate.upgrade(old)
        took = time.monotonic() - began
        before = one.recorded, two.recorded
        until(
            lambda: one.recorded > before[0] and two.recorded > before[1],
            DEADLINE_S,
            lambda: "nobody writes afterwards",
        )
    assert_migrated(old, rows + one.recorded + two.recorded)
    return took, sorted(one.waits + two.waits)


def test_who_writes_meanwhile_hardly_waits_and_loses_nothing(old):
    """All that was committed meanwhile is there and labelled, and no wait was long."""
    _took, waits = upgraded_under_traffic(old, ROWS)

    assert waits[-1] < 10  # nobody stood still, however busy the machine is; how long is told below


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_wait_grows_with_the_table(postgresql, capsys):
    """300,000 rows in each table: who writes waits no longer than a step may wait for its locks, and a little."""
    rows = 300_000
    old = filled(postgresql, rows)
    steps = []
    retry = online_migration.OnlineSteps._retry

    def timed(self, step, work):
        began = time.monotonic()
        done = retry(self, step, work)
        steps.append((step, time.monotonic() - began))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online_migration.OnlineSteps, "_retry", timed)
        took, waits = upgraded_under_traffic(old, rows)
    postgresql.drop(old)
    with capsys.disabled():
        print(
            f"\n{rows} rows: {took:.1f} s, {len(waits)} units of work meanwhile, p50 {waits[len(waits) // 2]:.4f} s,"
            f" p99 {waits[len(waits) * 99 // 100]:.3f} s, longest {waits[-1]:.3f} s"
        )

    assert waits[-1] < 2
    assert max(seconds for _, seconds in steps) < 2
