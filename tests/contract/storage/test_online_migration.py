"""The migration to many machines runs beside the program before it, and goes on wherever it was killed."""

import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from storage import migrate, online, partitions
from storage.database import Database
from storage.ids import first_id
from storage.tables import TransitionTable
from tests.fakes.drift import drift
from tests.fakes.old_rows import counts, expected, fill
from tests.fakes.waiting import until

ROWS = 30


def before(postgresql, rows):
    name = postgresql.empty()
    # As installed: longer than a step of the migration waits for its locks, so that it is the one that gives way.
    postgresql.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '1s'")
    database = Database(postgresql.url_of(name))
    migrate.upgrade(database, to="0002")
    fill(database, rows)
    return database


class Killed(BaseException):
    """What no program catches."""


@pytest.fixture
def old(postgresql, monkeypatch):
    """A database of the schema before, with rows in every table."""
    monkeypatch.setattr(online, "BATCH", 7)  # so that there are several
    database = before(postgresql, ROWS)
    yield database
    postgresql.drop(database)


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
        migrate.upgrade(victim, to="0003")
    victim.close()
    migrate.upgrade(database)
    return len(begun) >= number


@pytest.mark.parametrize("number", [30, 62, 85, 108, 150, 190])
def test_a_migration_that_was_killed_goes_on(old, number):
    """Killed before a statement, run again: nothing is missing, and the schema is the newest."""
    assert upgraded_after_a_kill(old, number)

    assert counts(old) == expected(ROWS)
    assert drift(old) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_migration_may_be_killed_at_any_statement(postgresql, monkeypatch):
    """Before every one of its statements in turn."""
    monkeypatch.setattr(online, "BATCH", 20)
    template = before(postgresql, ROWS)
    template.close()
    name = make_url(template.url).database
    number = 0
    is_killed = True
    while is_killed:
        number += 1
        database = Database(postgresql.url_of(postgresql._create(name)))
        is_killed = upgraded_after_a_kill(database, number)
        assert counts(database) == expected(ROWS), f"killed before statement {number}"
        assert drift(database) == [], f"killed before statement {number}"
        postgresql.drop(database)

    assert number > 100


def test_an_index_that_was_left_half_built_is_built_again(old, monkeypatch):
    """A server that dies while it builds an index leaves one that is no good, under the name that is wanted."""
    index, broken = online.Online.index, []

    def after_a_crash(self, name, definition):
        with old.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            table = definition.partition(" ON ")[2].partition(" ")[0]
            few = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 2) AS few"  # noqa: S608 - our own names
            if connection.exec_driver_sql(few).scalar_one() < 2:  # nothing is in it that could fail to be unique
                index(self, name, definition)
                return
            with pytest.raises(IntegrityError):  # not unique, and what was begun stays
                connection.exec_driver_sql(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} ((1))")
        broken.append(name)
        index(self, name, definition)

    monkeypatch.setattr(online.Online, "index", after_a_crash)
    migrate.upgrade(old)

    assert len(broken) == 11, broken
    assert counts(old) == expected(ROWS)
    assert drift(old) == []


def test_a_partition_made_amid_the_building_of_an_index_has_it_too(old, monkeypatch):
    """The index of a partitioned table is on every partition at the end, also on those that others made meanwhile."""
    index = online.Online.index

    def with_another_partition(self, name, definition):
        if name == "inbox_message_rest_stuck":
            partitions.keep_ahead(old, datetime(2030, 1, 1, tzinfo=UTC), partitions.Period.MONTH, ahead=0)
        index(self, name, definition)

    monkeypatch.setattr(online.Online, "index", with_another_partition)
    migrate.upgrade(old)
    partitions.keep_ahead(old, datetime(2031, 1, 1, tzinfo=UTC), partitions.Period.MONTH, ahead=0)

    with old.read() as unit:
        query = "SELECT indrelid::regclass::text FROM pg_index WHERE indisvalid AND pg_get_expr(indpred, indrelid) "
        found = set(unit.execute(text(f"{query} LIKE '%parked%'")).scalars())
        parts = {part.name for part in partitions.existing(unit, "inbox_message")}
    assert {"inbox_message_p20300101", "inbox_message_p20310101"} <= parts
    assert found == {"inbox_message", "inbox_message_rest", *parts}
    assert drift(old) == []


def test_what_a_wrong_clock_recorded_lies_in_the_rest(old):
    """Ids of the year 2100 do not stand in the way, and are found as before."""
    with old.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO inbox_message (id, account, source, delivery_key, body, headers, digest, envelope_digest,"
            " received_at, status, attempts, available_at, claim_token, outcomes, redeliveries) VALUES"
            " ('04000000-0000-7000-8000-000000000001', 'acme', 'webhook', 'from 2100', '', '[]', '', '', now(),"
            " 'decided', 0, now(), 1, '[]', 0)"
        )
    migrate.upgrade(old)

    with old.engine.connect() as connection:
        rest = connection.exec_driver_sql("SELECT delivery_key FROM inbox_message_rest").scalars().all()
    assert rest == ["from 2100"]
    assert counts(old) == expected(ROWS) | {"inbox_message": ROWS + 1, "known_delivery": ROWS + 1}


def test_a_bound_that_has_come_near_is_moved(old, monkeypatch):
    """A migration that is taken up again weeks later does not refuse what is recorded meanwhile."""
    victim = Database(old.url)
    monkeypatch.setattr(online.Online, "alone", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        migrate.upgrade(victim)
    victim.close()
    monkeypatch.undo()
    with old.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE migration_step SET position = (now() + interval '3 days')::text WHERE step = 'bound'"
        )
    migrate.upgrade(old)

    with old.engine.connect() as connection:
        far = connection.exec_driver_sql("SELECT now() + interval '30 days'").scalar_one()
        bound = connection.exec_driver_sql(
            "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'inbox_message_first'"
        ).scalar_one()
    assert bound.partition("TO ('")[2][:36] > first_id(far)
    assert counts(old) == expected(ROWS)


def test_no_row_is_looked_at_while_tables_are_locked(old):
    """The server itself says that the constraint spares it the rows when the old tables become partitions."""
    said = []
    listening = Database(old.url)

    def listen(connection, _record):
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("SET client_min_messages = debug1")
        connection.commit()

    event.listen(listening.engine, "connect", listen)
    migrate.upgrade(listening, to="0003")
    listening.close()

    for table in ("inbox_message", "transition", "delivery_attempt"):
        assert f'partition constraint for table "{table}_first" is implied by existing constraints' in said


def test_history_stays_closed_while_it_is_migrated(old, monkeypatch):
    """Between any two steps nobody can change a transition, but for the account that the migration itself puts in."""
    tried = []
    short = online.Online.short

    def checking(self, step, *works):
        short(self, step, *works)
        for change in (
            "UPDATE transition SET reason = 'x'",
            "DELETE FROM transition",
            "TRUNCATE transition",
            "UPDATE transition SET account = 'mine'",
        ):
            with pytest.raises((IntegrityError, ProgrammingError)), old.engine.begin() as connection:
                connection.exec_driver_sql(change)
        tried.append(step)

    monkeypatch.setattr(online.Online, "short", checking)
    migrate.upgrade(old)

    assert "switch" in tried
    assert counts(old) == expected(ROWS)


def test_nothing_but_the_account_may_be_put_in(old, monkeypatch):
    """While accounts are filled in, no other column of a transition changes with them, and none is given another's."""
    refused = []
    short = online.Online.short
    columns = [column.name for column in TransitionTable.__table__.c if column.name != "account"]

    def checking(self, step, *works):
        short(self, step, *works)
        if step != "account of transition":
            return
        others = {"boolean": "true", "json": "'[\"x\"]'", "uuid": "uuidv7()", "integer": "99"}
        for column in columns:
            with old.engine.connect() as connection:
                typed = f"SELECT pg_typeof({column})::text FROM transition"  # noqa: S608 - our names
                kind = connection.exec_driver_sql(typed).scalars().first()
            other = others.get(kind, "'2026-01-01'")
            change = f"UPDATE transition SET account = 'acme', {column} = {other}"  # noqa: S608 - our names
            with pytest.raises(IntegrityError, match="append-only"), old.engine.begin() as connection:
                connection.exec_driver_sql(change)
            refused.append(column)
        with pytest.raises(IntegrityError, match="append-only"), old.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE transition SET account = 'another'")
        with old.engine.begin() as connection:
            assert connection.exec_driver_sql("UPDATE transition SET account = 'acme'").rowcount == ROWS

    monkeypatch.setattr(online.Online, "short", checking)
    migrate.upgrade(old)

    assert refused == columns
    assert counts(old) == expected(ROWS)


def test_who_waits_for_a_migration_does_not_hold_it_up(old):
    """Building an index waits for every query that runs, so a second process asks instead of waiting."""
    pools, found = [Database(old.url) for _ in range(3)], []
    threads = [threading.Thread(target=lambda opened=each: found.append(migrate.upgrade(opened))) for each in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for opened in pools:
        opened.close()

    assert found == [migrate.newest()] * 3
    assert counts(old) == expected(ROWS)


MESSAGE = (
    "INSERT INTO inbox_message (id, account, source, delivery_key, body, headers, digest, envelope_digest, received_at,"
    " status, attempts, available_at, claim_token, outcomes, redeliveries) VALUES (uuidv7(), 'acme', 'webhook', :key,"
    " '', '[]', '', '', now(), 'decided', 0, now(), 1, '[]', 0) "
)
PAYMENT = (
    "INSERT INTO payment (id, account, kind, provider_ref, phase, version, head_hash, reviews, statements, facts,"
    " created_at, changed_at, seal, heard_at, polls, poll_priority, poll_failures) VALUES (uuidv7(), 'acme', 'k', :key,"
    " 'paid', 1, '', 0, 0, '{}', now(), now(), '', now(), 0, 4, 0) RETURNING id"
)
TRANSITION = (
    (
        "id, payment_id, number, to_state, phase, via, forced, cause, evidence, source, reason, recorded_at, "
        "prev_hash, hash"
    ),
    "uuidv7(), :payment, 1, 'paid', 'paid', '[]', false, :cause, '', 'webhook', 'a test', now(), '', 'h'",
)

#: How either program records a message and a transition.
OLD = {
    "conflict": "ON CONFLICT (account, delivery_key) DO NOTHING RETURNING id",
    "transition": "INSERT INTO transition ({}) VALUES ({})".format(*TRANSITION),  # noqa: S608 - our words
}
NEW = {
    "conflict": "RETURNING id",
    "transition": "INSERT INTO transition (account, {}) VALUES ('acme', {})".format(*TRANSITION),  # noqa: S608 - our words
}


class Traffic:
    """Writes as the program of 0002 does until its statements are refused, then as the new one; remembers its waits."""

    def __init__(self, database, name):
        self._name = name
        self._database = Database(database.url)
        self._stop = threading.Event()
        self.waits, self.recorded, self.is_new = [], 0, False
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
            try:
                with self._database.write() as unit:
                    self._write(unit, f"{self._name} {self.recorded}")
                self.recorded += 1
            except (IntegrityError, ProgrammingError):
                assert not self.is_new
                self.is_new = True
            self.waits.append(time.monotonic() - began)
            self._stop.wait(0.01)

    def _write(self, unit, key):
        how = NEW if self.is_new else OLD
        made = str(unit.execute(text(MESSAGE + how["conflict"]), {"key": key}).scalar_one())
        if self.is_new:
            unit.execute(text("INSERT INTO known_delivery VALUES ('acme', :key, :id, '')"), {"key": key, "id": made})
        payment = str(unit.execute(text(PAYMENT), {"key": key}).scalar_one())
        unit.execute(text(how["transition"]), {"payment": payment, "cause": made})
        unit.execute(text("SELECT count(*) FROM transition WHERE cause = :cause"), {"cause": made})


def upgraded_under_traffic(old):
    """Seconds of the upgrade, and what two who write and read meanwhile have waited at most."""
    with Traffic(old, "one") as one, Traffic(old, "two") as two:
        until(lambda: one.recorded > 3 and two.recorded > 3, 10, lambda: "nobody writes")
        began = time.monotonic()
        migrate.upgrade(old, to="0003")
        took = time.monotonic() - began
        until(lambda: one.is_new and two.is_new, 10, lambda: "nobody noticed")
    found = counts(old)
    assert found["unknown"] == found["without account"] == 0
    return took, one, two, found


def test_who_writes_meanwhile_hardly_waits_and_loses_nothing(old):
    """All that was committed by either program is there, known and with its account, and no wait was long."""
    _took, one, two, found = upgraded_under_traffic(old)

    assert found["inbox_message"] == found["transition"] == ROWS + one.recorded + two.recorded
    assert max(one.waits + two.waits) < 10  # nobody stood still, however busy the machine is; how long is told below


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_wait_grows_with_the_table(postgresql, capsys):
    """300,000 rows in each table: who writes waits no longer than a step may wait for its locks, and a little."""
    rows = 300_000
    old = before(postgresql, rows)
    steps = []
    patiently = online.Online._patiently

    def timed(self, step, work):
        began = time.monotonic()
        done = patiently(self, step, work)
        steps.append((step, time.monotonic() - began))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online.Online, "_patiently", timed)
        took, one, two, found = upgraded_under_traffic(old)
    postgresql.drop(old)
    waits = sorted(one.waits + two.waits)
    with capsys.disabled():
        print(
            f"\n{rows} rows: {took:.1f} s, {len(waits)} units of work meanwhile, p50 {waits[len(waits) // 2]:.4f} s,"
            f" p99 {waits[len(waits) * 99 // 100]:.3f} s, longest {waits[-1]:.3f} s"
        )
        for step in dict.fromkeys(name for name, _ in steps):
            each = [seconds for name, seconds in steps if name == step]
            print(f"  {step:32} {len(each):4} transactions {sum(each):7.2f} s, longest {max(each):.3f} s")

    assert found["inbox_message"] == rows + one.recorded + two.recorded
    assert waits[-1] < 2
    assert max(seconds for name, seconds in steps if not name.startswith("surely")) < 2
