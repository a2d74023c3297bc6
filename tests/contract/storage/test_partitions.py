"""Time partitions: made ahead, bounded to the millisecond, and whatever falls between them is found and put right."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from storage import inbox, partitions, transitions
from storage.advisory_locks import is_leader
from storage.database import Database
from storage.errors import StorageUnavailable
from storage.ids import first_id, instant_of, new_id
from storage.partitions import Period
from tests.support import keeping
from tests.support.builders import a_message, a_payment
from tests.support.drift import drift

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


@pytest.fixture
def empty(postgresql):
    """A migrated PostgreSQL database."""
    opened = postgresql.copy()
    yield opened
    postgresql.drop(opened)


def an_id(at, tail="7000-8000-000000000001"):
    """An id that was made at that instant."""
    return first_id(at)[:14] + tail


def names(database, table="inbox_message"):
    with database.read() as unit:
        return [part.name for part in partitions.existing(unit, table)]


def where(database, table, by, row_id):
    """The partition that holds a row."""
    with database.read() as unit:
        query = text(f"SELECT tableoid::regclass::text FROM {table} WHERE {by} = :id")  # noqa: S608 - our names
        return unit.execute(query, {"id": row_id}).scalar()


def record(database, *ids):
    with database.write() as unit:
        inbox.record(unit, [a_message(message_id=row_id) for row_id in ids])


@pytest.mark.parametrize(
    ("period", "at", "begin", "end"),
    [
        ("month", (2026, 11, 30, 23, 59), (2026, 11, 1), (2026, 12, 1)),
        ("month", (2026, 12, 31, 23, 59), (2026, 12, 1), (2027, 1, 1)),
        ("month", (2028, 2, 29), (2028, 2, 1), (2028, 3, 1)),
        ("week", (2026, 11, 22, 23, 59), (2026, 11, 16), (2026, 11, 23)),
        ("week", (2026, 11, 23), (2026, 11, 23), (2026, 11, 30)),
        ("day", (2026, 12, 31, 12), (2026, 12, 31), (2027, 1, 1)),
    ],
)
def test_a_period_has_an_end(period, at, begin, end):
    """The end of one is the beginning of the next, also over a year's end and a leap day."""
    found = Period(period)
    instant = datetime(*at, tzinfo=UTC)

    assert (found.begin(instant), found.end(instant)) == (datetime(*begin, tzinfo=UTC), datetime(*end, tzinfo=UTC))
    assert found.begin(found.end(instant)) == found.end(instant)


def test_an_id_tells_its_instant():
    """To the millisecond, both ways."""
    at = datetime(2026, 11, 21, 9, 30, 0, 123_000, tzinfo=UTC)

    assert instant_of(first_id(at)) == at
    assert instant_of(an_id(at)) == at


def test_the_coming_partitions_are_there(empty):
    """The current one and three more of each table, named by their beginning; a repeat makes none."""
    made = partitions.keep_ahead(empty, NOW, Period.MONTH).made

    months = ("20261101", "20261201", "20270101", "20270201")
    assert sorted(made) == sorted(f"{table}_p{month}" for table in partitions.PARTITIONED for month in months)
    assert names(empty) == [f"inbox_message_p{month}" for month in months]
    assert partitions.keep_ahead(empty, NOW, Period.MONTH) == partitions.Kept()
    assert partitions.keep_ahead(empty, NOW + timedelta(days=10), Period.MONTH).made[0] == "inbox_message_p20270301"
    assert drift(empty) == []


def test_on_sqlite_there_are_none(template, tmp_path):
    """A file has no partitions, and the duty nothing to do."""
    database = Database(f"sqlite:///{template}")
    assert partitions.keep_ahead(database, NOW, Period.MONTH) == partitions.Kept()
    database.close()


def test_each_side_of_a_bound(empty):
    """The last millisecond of a month is in its partition, and the first of the next in the next one."""
    partitions.keep_ahead(empty, NOW, Period.MONTH)
    bound = datetime(2026, 12, 1, tzinfo=UTC)
    before = an_id(bound - timedelta(milliseconds=1), "7fff-bfff-ffffffffffff")
    after = first_id(bound)
    record(empty, before, after)

    assert where(empty, "inbox_message", "id", before) == "inbox_message_p20261101"
    assert where(empty, "inbox_message", "id", after) == "inbox_message_p20261201"


def test_a_wrong_clock_hurts_nobody(empty):
    """Ids of 1970 and 2100 are kept in the rest, stay there, and are no reason to make a partition."""
    wrong = [an_id(datetime(1970, 1, 2, tzinfo=UTC)), an_id(datetime(2100, 1, 1, tzinfo=UTC))]
    record(empty, *wrong)
    kept = partitions.keep_ahead(empty, NOW, Period.MONTH)

    assert len(kept.made) == 12
    assert (kept.moved, kept.strays) == ({}, {"inbox_message": 2})
    assert {where(empty, "inbox_message", "id", row_id) for row_id in wrong} == {"inbox_message_rest"}
    with empty.read() as unit:
        assert len(inbox.find(unit)) == 2


def test_what_fell_into_the_rest_is_moved(empty):
    """Rows of periods that should have had a partition get one, also of the past, and history may be moved too."""
    late, current = an_id(NOW - timedelta(days=70)), an_id(NOW)
    record(empty, late, current)
    payment, message = a_payment(id=an_id(NOW - timedelta(days=40))), a_message()
    with empty.write() as unit:
        inbox.record(unit, [message])
        keeping.keep(unit, payment)
        keeping.moved_to_paid(unit, payment, message)
    kept = partitions.keep_ahead(empty, NOW, Period.MONTH)

    assert where(empty, "inbox_message", "id", late) == "inbox_message_p20260901"
    assert where(empty, "inbox_message", "id", current) == "inbox_message_p20261101"
    assert where(empty, "transition", "payment_id", payment.id) == "transition_p20261001"
    assert kept.moved["inbox_message"] >= 2
    assert kept.moved["transition"] == 1
    with empty.read() as unit:
        assert len(transitions.of_payment(unit, payment.id)) == 1


def test_many_rows_are_moved_in_bounded_pieces(empty, monkeypatch):
    """No transaction moves more than so many: a period that has more becomes several partitions."""
    monkeypatch.setattr(partitions, "MOVED_AT_ONCE", 10)
    record(empty, *(an_id(NOW + timedelta(minutes=minute)) for minute in range(25)))
    kept = partitions.keep_ahead(empty, NOW, Period.MONTH)

    assert names(empty)[:3] == ["inbox_message_p20261101", "inbox_message_p20261121", "inbox_message_p20261121_2"]
    assert (kept.moved, kept.strays) == ({"inbox_message": 25}, {})
    assert partitions.keep_ahead(empty, NOW, Period.MONTH) == partitions.Kept()


def test_another_length_begins_where_the_one_before_ends(empty):
    """Weeks after months: the first week is what of it no month has."""
    partitions.keep_ahead(empty, NOW, Period.MONTH, ahead=0)
    partitions.keep_ahead(empty, datetime(2026, 12, 2, tzinfo=UTC), Period.WEEK, ahead=1)

    assert names(empty) == ["inbox_message_p20261101", "inbox_message_p20261201", "inbox_message_p20261207"]
    assert partitions.keep_ahead(empty, datetime(2026, 12, 2, tzinfo=UTC), Period.WEEK, ahead=1).made == []


def test_history_is_append_only_in_every_partition(empty):
    """Also by the partition's own name, and also the rest."""
    partitions.keep_ahead(empty, NOW, Period.MONTH)
    for at in (NOW, datetime(2100, 1, 1, tzinfo=UTC)):
        payment, message = a_payment(id=an_id(at)), a_message()
        with empty.write() as unit:
            inbox.record(unit, [message])
            keeping.keep(unit, payment)
            keeping.moved_to_paid(unit, payment, message)
    for change in ("UPDATE {} SET reason = 'x'", "DELETE FROM {}", "TRUNCATE {}"):
        for partition in ("transition", "transition_rest", "transition_p20261101"):
            with pytest.raises(IntegrityError, match="append-only"), empty.write() as unit:
                unit.execute(text(change.format(partition)))


def test_who_holds_a_table_is_not_waited_for_long(empty, monkeypatch):
    """A reader of an hour costs this turn; and whoever writes behind us does not wait for that reader."""
    monkeypatch.setattr(partitions, "_TRIES", 2)
    other = Database(empty.url)
    with other.engine.connect() as held:
        held.exec_driver_sql("SELECT count(*) FROM inbox_message_rest")
        with pytest.raises(StorageUnavailable):
            partitions.keep_ahead(empty, NOW, Period.MONTH)
        record(empty, an_id(NOW))
        held.rollback()
    other.close()

    assert partitions.keep_ahead(empty, NOW, Period.MONTH).moved == {"inbox_message": 1}


def test_processes_that_begin_at_once_make_each_once(empty):
    """None fails, and no partition is made twice."""
    pools = [Database(empty.url) for _ in range(3)]
    gate, made = threading.Barrier(3), []

    def begin(opened):
        gate.wait()
        made.extend(partitions.keep_ahead(opened, NOW, Period.MONTH).made)

    threads = [threading.Thread(target=begin, args=(opened,)) for opened in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in pools:
        opened.close()
    made += partitions.keep_ahead(empty, NOW, Period.MONTH).made

    assert len(made) == len(set(made)) == 12


def test_one_at_a_time_leads(database, again):
    """Until its unit of work ends nobody else does the duty; another duty is another matter."""
    with database.write() as unit:
        assert is_leader(unit, "a duty")
        if unit.dialect == "postgresql":
            with again.write() as other:
                assert not is_leader(other, "a duty")
                assert is_leader(other, "another duty")
    with again.write() as other:
        assert is_leader(other, "a duty")


def test_new_ids_fall_into_the_current_partition(empty):
    """What is made now is where it belongs, and not in the rest."""
    partitions.keep_ahead(empty, instant_of(new_id()), Period.DAY)
    row_id = new_id()
    record(empty, row_id)

    assert where(empty, "inbox_message", "id", row_id) == f"inbox_message_p{instant_of(row_id):%Y%m%d}"
