"""Arrivals on every database: what the quick writers leave is what `inbox.record` would have left."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from storage import connections, hashing, inbox
from storage.database import Database, columns_of
from storage.errors import SchemaOutdated, StorageUnavailable
from storage.ids import first_id, new_id
from storage.inbox import Recorded
from storage.intake import Arrival, Outcome, Store, Unstorable, arrived, message_of
from storage.intake_stores import store_for
from storage.tables import InboxMessage
from tests.support.clock import START
from tests.support.waiting import DEADLINE_S, until

_ZONE = timezone(timedelta(hours=5, minutes=45))


def an_arrival(**changes: object) -> Arrival:
    return arrived(
        **{
            "account": "acme",
            "source": "webhook",
            "delivery_key": new_id(),
            "body": b"{}",
            "received_at": START,
            "headers": (("host", "pay.example"), ("x-strange", 'é"\\\u0001ÿ')),
            "key_id": "k1",
            **changes,
        }
    )


def with_store(database: Database, do: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = store_for(database)
        try:
            await do(store)
        finally:
            await store.close()

    asyncio.run(run())


def write(database: Database, *batches: Sequence[Arrival]) -> list[list[Outcome]]:
    """The batches, one after the other, by one store."""
    outcomes: list[list[Outcome]] = []

    async def all_of_them(store: Store) -> None:
        outcomes.extend([await store.write(batch) for batch in batches])

    with_store(database, all_of_them)
    return outcomes


def rows(database: Database, account: str = "acme") -> list[InboxMessage]:
    with database.read() as unit:
        return inbox.find(unit, account=account, limit=10_000)


def plain(message: InboxMessage) -> dict[str, object]:
    return {name: getattr(message, name) for name in columns_of(InboxMessage)}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"provider_time": START - timedelta(seconds=3), "kind": "payin", "about": new_id(), "source": "callback"},
        {"received_at": datetime(2026, 3, 29, 1, 30, 0, 1, _ZONE), "provider_time": datetime(1999, 1, 1, tzinfo=UTC)},
        {"body": bytes(range(256)) * 40, "headers": (), "key_id": None},
        {"delivery_key": "ключ\N{PILE OF POO}'\";--", "headers": (("a", "1"), ("a", "2"))},
    ],
)
def test_every_column_is_as_record_leaves_it(database, changes):
    """Instants to the microsecond, bytes, text of any language, and what is not there; sealed by the same digest."""
    arrival = an_arrival(**{"delivery_key": "k", **changes})
    twin = message_of(an_arrival(**{"delivery_key": "k", **changes, "account": "twin"}))
    assert write(database, [arrival]) == [[Recorded(arrival.id)]]
    with database.write() as unit:
        inbox.record(unit, [twin])

    (found,), (expected,) = rows(database), rows(database, "twin")
    own = {"id": arrival.id, "account": "acme", "envelope_digest": database.sealer.seal(arrival.envelope)}
    assert plain(found) == plain(expected) | own
    assert hashing.envelope(message_of(arrival)) == arrival.envelope


@pytest.mark.parametrize("number", [1, 2, 3, 31, 33, 300])
def test_a_batch_of_any_size_is_recorded_in_order(database, number):
    """One outcome for each, in the given order."""
    batch = [an_arrival() for _ in range(number)]
    assert write(database, batch) == [[Recorded(arrival.id) for arrival in batch]]
    assert [row.id for row in rows(database)] == [arrival.id for arrival in batch]
    claimed = []
    with database.write() as unit:
        claimed = inbox.claim(unit, START, timedelta(minutes=1), 500)
    assert len(claimed) == number


def test_a_repeat_is_counted_across_batches_and_within_one(database):
    """How often, and when last; a batch may hold new ones and repeats of each other."""
    first, other = an_arrival(delivery_key="k"), an_arrival()
    times = [START + timedelta(seconds=n) for n in range(1, 4)]
    again = [an_arrival(delivery_key="k", received_at=at) for at in times]
    new, newer = an_arrival(delivery_key="n"), an_arrival(delivery_key="n", received_at=times[0])

    outcomes = write(database, [first, other], [again[0]], [again[1], new, again[2], newer])
    assert outcomes[1:] == [
        [Recorded(first.id, is_duplicate=True)],
        [
            Recorded(first.id, is_duplicate=True),
            Recorded(new.id),
            Recorded(first.id, is_duplicate=True),
            Recorded(new.id, is_duplicate=True),
        ],
    ]
    found = {row.id: (row.redeliveries, row.last_redelivered_at) for row in rows(database)}
    assert found == {first.id: (3, times[2]), other.id: (0, None), new.id: (1, times[0])}


def test_a_provider_that_delivers_all_of_it_again_is_counted_once_for_each(database):
    """What is known is looked for first then; where something is new after all, the others are not counted twice."""
    firsts = [an_arrival(delivery_key=f"k{n}") for n in range(3)]

    def again() -> list[Arrival]:
        return [an_arrival(delivery_key=f"k{n}") for n in range(3)]

    new, other = an_arrival(), an_arrival(delivery_key="k1", body=b"other")
    outcomes = write(database, firsts, again(), again(), [*again(), new], again(), [*again(), other], again(), firsts)
    known = [Recorded(arrival.id, is_duplicate=True) for arrival in firsts]
    assert outcomes[1:3] == [known, known]
    assert outcomes[3:] == [
        [*known, Recorded(new.id)],
        known,
        [*known, Recorded(other.id, is_variant=True)],
        known,
        [Recorded(arrival.id) for arrival in firsts],
    ]
    found = {row.id: (row.redeliveries, row.variant_of) for row in rows(database)}
    assert found == {
        **{arrival.id: (6, None) for arrival in firsts},
        new.id: (0, None),
        other.id: (0, firsts[1].id),
    }


def test_other_content_is_a_variant_whatever_else_is_in_the_batch(database):
    """Kept as a message of its own that names the first; its repeats are its own."""
    first, variant = an_arrival(delivery_key="k", body=b"1"), an_arrival(delivery_key="k", body=b"2")
    repeat, new = an_arrival(delivery_key="k", body=b"2"), an_arrival()

    (outcomes,) = write(database, [first, variant, new, repeat])
    assert outcomes[:3] == [Recorded(first.id), Recorded(variant.id, is_variant=True), Recorded(new.id)]
    assert outcomes[3] == Recorded(variant.id, is_duplicate=True, is_variant=True)
    found = {row.id: (row.variant_of, row.redeliveries, row.body) for row in rows(database)}
    assert found[variant.id] == (first.id, 1, b"2")
    assert found[first.id] == (None, 0, b"1")


def test_keys_are_one_account_s_own(database):
    """Two accounts may be told the same delivery key."""
    batch = [an_arrival(delivery_key="k"), an_arrival(delivery_key="k", account="other")]
    assert write(database, batch) == [[Recorded(arrival.id) for arrival in batch]]


def test_a_batch_whose_end_nobody_saw_can_be_repeated(database):
    """The same arrivals again are the same messages, and no redelivery of themselves."""
    batch = [an_arrival() for _ in range(5)]
    assert write(database, batch, batch) == [[Recorded(arrival.id) for arrival in batch]] * 2
    assert [row.redeliveries for row in rows(database)] == [0] * 5


def test_two_processes_with_the_same_deliveries_do_not_stop_each_other(database, again):
    """Each delivery is one message, whoever was first; nobody fails, whatever the order."""
    keys = [f"k{number}" for number in range(40)]
    failures: list[BaseException] = []
    counted: list[bool] = []
    gate = threading.Barrier(2)

    def deliver(opened: Database, *, backwards: bool) -> None:
        order = keys[::-1] if backwards else keys
        gate.wait()
        try:
            for outcomes in write(opened, *([[an_arrival(delivery_key=key) for key in order]] * 3)):
                counted.extend(outcome.is_duplicate for outcome in outcomes)
        except Exception as fault:  # noqa: BLE001 - told by the thread that waits
            failures.append(fault)

    threads = [
        threading.Thread(target=deliver, args=(opened,), kwargs={"backwards": backwards})
        for opened, backwards in ((database, False), (again, True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert counted.count(False) >= 40
    assert sorted(row.delivery_key for row in rows(database)) == sorted(keys)


@pytest.fixture
def poisoned(database):
    """A database that refuses one row: that with the body b'poison'."""
    if database.engine.dialect.name == "sqlite":
        statements = [
            """CREATE TRIGGER poison BEFORE INSERT ON inbox_message WHEN NEW.body = CAST('poison' AS BLOB)
            BEGIN SELECT RAISE(ABORT, 'poison'); END"""
        ]
    else:
        statements = [
            """CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.body = 'poison'::bytea THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$""",
            "CREATE TRIGGER poison BEFORE INSERT ON inbox_message FOR EACH ROW EXECUTE FUNCTION poison()",
        ]
    with database.write() as unit:
        for statement in statements:
            unit.execute(text(statement))
    return database


def test_nothing_is_kept_of_a_batch_with_poison(poisoned):
    """It raises something that says that storage is there; the rest can be written at once."""
    good = [an_arrival() for _ in range(4)]

    async def do(store: Store) -> None:
        with pytest.raises(Exception, match="poison") as refused:
            await store.write([*good, an_arrival(body=b"poison")])
        assert not isinstance(refused.value, StorageUnavailable | SchemaOutdated)
        assert await store.write(good) == [Recorded(arrival.id) for arrival in good]

    with_store(poisoned, do)
    assert len(rows(poisoned)) == 4


def test_a_poison_variant_fails_alone(poisoned):
    """Its neighbours are recorded in the same call."""
    first, other = an_arrival(delivery_key="k"), an_arrival()
    write(poisoned, [first])
    (outcomes,) = write(poisoned, [an_arrival(delivery_key="k", body=b"poison"), other])
    assert isinstance(outcomes[0], Unstorable)
    assert outcomes[1] == Recorded(other.id)


@pytest.mark.parametrize("key", ["nul\0byte", "lone\ud800surrogate"])
def test_text_that_a_database_refuses_is_no_outage(database, key):
    """PostgreSQL has no NUL in text, and nobody has half a character: such a message is poison, and the store lives."""
    good = an_arrival()

    async def do(store: Store) -> None:
        bad = msgspec.structs.replace(good, delivery_key=key)
        refused = await asyncio.gather(store.write([bad]), return_exceptions=True)
        assert not isinstance(refused[0], StorageUnavailable | SchemaOutdated)
        other = an_arrival()
        assert await store.write([other]) == [Recorded(other.id)]

    with_store(database, do)


def test_a_column_that_is_gone_is_an_outdated_schema(database):
    """Not a fault of the messages: none of them is called poison."""
    with database.write() as unit:
        unit.execute(text("ALTER TABLE inbox_message RENAME COLUMN headers TO heads"))

    async def do(store: Store) -> None:
        with pytest.raises(SchemaOutdated):
            await store.write([an_arrival()])

    with_store(database, do)


@contextmanager
def locked(database: Database):
    """Another process writes, and does not end."""
    other = Database(database.url)
    with other.write() as unit:
        if database.engine.dialect.name == "postgresql":
            unit.execute(text("LOCK TABLE known_delivery IN ACCESS EXCLUSIVE MODE"))
        yield
    other.close()


def test_a_database_that_is_held_up_is_away_for_a_while(database, monkeypatch):
    """The batch ends within a bound, with nothing kept; afterwards the same store writes it."""
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.1)
    monkeypatch.setitem(connections.SESSION, "lock_timeout", "100ms")
    database = Database(database.url)
    batch = [an_arrival()]

    async def do(store: Store) -> None:
        with locked(database), pytest.raises(StorageUnavailable):
            await store.write(batch)
        assert await store.write(batch) == [Recorded(batch[0].id)]

    with_store(database, do)
    assert len(rows(database)) == 1
    database.close()


def test_a_lost_connection_is_made_again(request, postgresql):
    """PostgreSQL ends every session; the next batch is recorded by another, and one that was under way too."""
    database = postgresql.copy()
    request.addfinalizer(lambda: postgresql.drop(database))
    batches = [[an_arrival() for _ in range(3)] for _ in range(3)]

    async def do(store: Store) -> None:
        for batch in batches:
            assert await store.write(batch) == [Recorded(arrival.id) for arrival in batch]
            with database.write() as unit:
                unit.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )

    with_store(database, do)
    assert len(rows(database)) == 9


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12), st.integers(1, 5))
def test_any_mix_of_deliveries_is_as_record_leaves_it(database, deliveries, batch):
    """Two accounts get the same deliveries in the same batches, one by each way: their inboxes are the same."""
    quick, slow = new_id(), new_id()
    ours = [an_arrival(account=quick, delivery_key=f"k{key}", body=bytes([body])) for key, body in deliveries]
    theirs = [
        message_of(an_arrival(account=slow, delivery_key=f"k{key}", body=bytes([body]))) for key, body in deliveries
    ]
    parts = range(0, len(ours), batch)
    got = [outcome for outcomes in write(database, *(ours[at : at + batch] for at in parts)) for outcome in outcomes]
    expected: list[Recorded] = []
    for at in parts:
        with database.write() as unit:
            expected += inbox.record(unit, theirs[at : at + batch])

    def told(outcomes: Sequence[Recorded]) -> list[tuple[bool, bool]]:
        return [(outcome.is_duplicate, outcome.is_variant) for outcome in outcomes]

    def kept(account: str) -> list[tuple[object, ...]]:
        found = rows(database, account)
        return sorted((m.delivery_key, m.body, m.redeliveries, m.variant_of is None) for m in found)

    assert kept(quick) == kept(slow)
    assert sum(duplicate for duplicate, _ in told(got)) == sum(duplicate for duplicate, _ in told(expected))


def test_a_batch_that_meets_a_partition_in_the_making_is_kept_all_the_same(postgresql, request):
    """Its rows were on their way to the partition that held the rest until then; nobody is told 503 for that."""
    database, arrival, began = postgresql.cleaned(), an_arrival(), threading.Event()
    request.addfinalizer(database.close)
    today = datetime.now(UTC)

    def is_waited_for() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        with database.read() as unit:
            return bool(unit.execute(text(query)).scalar_one())

    def making() -> None:
        low, high = first_id(today - timedelta(days=1)), first_id(today + timedelta(days=1))
        attach = f"ATTACH PARTITION inbox_message_p19990101 FOR VALUES FROM ('{low}') TO ('{high}')"
        with database.write() as unit:  # as storage/partitions.py does it, which takes no lock that a batch has
            unit.execute(text("CREATE TABLE inbox_message_p19990101 (LIKE inbox_message INCLUDING DEFAULTS)"))
            unit.execute(text("LOCK TABLE inbox_message_rest IN ACCESS EXCLUSIVE MODE"))
            began.set()
            until(is_waited_for, DEADLINE_S, lambda: "the batch to wait")
            unit.execute(text(f"ALTER TABLE inbox_message {attach}"))

    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(making)
        assert began.wait(DEADLINE_S)
        assert write(database, [arrival]) == [[Recorded(arrival.id)]]
        made.result(10)

    with database.read() as unit:
        found = unit.execute(text("SELECT count(*) FROM inbox_message_p19990101")).scalar_one()
    assert found == 1


def test_a_redelivery_whose_message_is_held_holds_up_no_other(request, postgresql):
    """Another session has locked the row of a message; what comes with its repeat is recorded, and the repeat known."""
    database = postgresql.copy()
    request.addfinalizer(lambda: postgresql.drop(database))
    key = new_id()
    first, repeat, once_more = (an_arrival(delivery_key=key) for _ in range(3))
    others = [an_arrival() for _ in range(3)]

    async def do(store: Store) -> None:
        await store.write([first])
        await store.write([an_arrival(delivery_key=key)])
        other = Database(database.url)
        with other.write() as unit:
            unit.execute(text("SELECT message_id FROM inbox_redelivery FOR UPDATE"))
            outcomes = await store.write([others[0], repeat, *others[1:]])
        other.close()
        assert [outcome.is_duplicate for outcome in outcomes] == [False, True, False, False]
        assert await store.write([once_more]) == [Recorded(first.id, is_duplicate=True)]

    with_store(database, do)
    found = rows(database)
    assert len(found) == 4
    assert [message.redeliveries for message in found if message.id == first.id] == [2], "the held one was not counted"
