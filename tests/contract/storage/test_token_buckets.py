"""How fast an API key may call: one bucket for each key over all who serve, which gives what it gets."""

import threading
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.rate_limits import allowance
from storage import migrate
from storage.columns import table_of
from storage.database import Database
from storage.ids import new_id
from storage.tables_support import ApiRate
from storage.token_buckets import BucketRate, LocalBuckets, SharedBuckets, token_buckets
from tests.support.cluster import running
from tests.support.pgbouncer import pooling
from tests.support.waiting import DEADLINE_S, until

#: So slow that what a test takes gives nothing back.
SLOW = BucketRate(1 / 3600, 3)

several = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Passing:
    """Buckets of a database whose time passes as a test says, over the little that passes by itself."""

    def __init__(self, database, rate):
        self._database = database
        self._now = 0.0
        is_shared = database.engine.dialect.name == "postgresql"
        self._rates = SharedBuckets(database, rate) if is_shared else LocalBuckets(rate, lambda: self._now)
        self.take = self._rates.take

    def passes(self, wait):
        self._now += wait.total_seconds()
        if self._database.engine.dialect.name == "postgresql":
            with self._database.write() as unit:
                earlier = sa.text("UPDATE api_rate SET full_at = full_at - CAST(:wait AS interval)")
                unit.execute(earlier, {"wait": wait})


@several
@given(st.integers(1, 5), st.lists(st.integers(0, 20), max_size=12))
def test_a_bucket_gives_what_it_holds_and_what_it_gets(database, burst, sixths):
    """Against a bucket of whole tokens, of which a sixth comes back in ten minutes: as much is granted, and no more."""
    passing, key = Passing(database, BucketRate(1 / 3600, burst)), new_id()
    tokens = Fraction(burst)
    for wait in sixths:
        taken = passing.take(key)
        told = allowance(BucketRate(1 / 3600, burst), taken)
        assert taken.is_granted == (tokens >= 1)
        tokens -= int(taken.is_granted)
        assert told.remaining == int(tokens)
        assert abs(told.reset_seconds - (burst - tokens) * 3600) <= 10
        if not taken.is_granted:
            assert abs(told.retry_after - (1 - tokens) * 3600) <= 10
        passing.passes(timedelta(minutes=10 * wait))
        tokens = min(Fraction(burst), tokens + Fraction(wait, 6))


@given(
    st.sampled_from([0.5, 3.0, 7.0, 50.0]),
    st.integers(1, 20),
    st.lists(st.integers(0, 400), min_size=1, max_size=80),
)
def test_no_time_holds_more_than_the_burst_and_what_came_back(per_second, burst, steps):
    """Whatever the order of calls and rests, in every stretch of time; and whoever waits as told is granted."""
    now = [0.0]
    kept, granted = LocalBuckets(BucketRate(per_second, burst), lambda: now[0]), []
    for step in steps:
        now[0] += step / 1000
        taken = kept.take("k")
        if taken.is_granted:
            granted.append(now[0])
        else:
            now[0] += allowance(BucketRate(per_second, burst), taken).retry_after
            assert kept.take("k").is_granted
            granted.append(now[0])
    for first, begun in enumerate(granted):
        for last in range(first, len(granted)):
            assert last - first + 1 <= burst + (granted[last] - begun) * per_second * (1 + 1e-5) + 1e-3


def test_keys_do_not_wait_for_each_other(database):
    """Each key has a bucket of its own, and what it is told adds up."""
    kept, key = token_buckets(database, SLOW), new_id()
    told = [allowance(SLOW, kept.take(key)) for _ in range(4)]

    assert [one.is_granted for one in told] == [True, True, True, False]
    assert [one.remaining for one in told] == [2, 1, 0, 0]
    assert {one.limit for one in told} == {3}
    assert [one.retry_after > 0 for one in told] == [False, False, False, True]
    assert 3590 < told[3].retry_after <= 3600
    assert 10_790 < told[3].reset_seconds <= 10_800
    assert kept.take(new_id()).is_granted


def test_everybody_who_serves_takes_from_one_bucket(database, again):
    """Two pools, two threads each, a hundred requests: the burst is granted once. On SQLite one process serves."""
    one = token_buckets(database, BucketRate(1 / 3600, 40))
    other = token_buckets(again, BucketRate(1 / 3600, 40)) if database.engine.dialect.name == "postgresql" else one
    key, gate, granted = new_id(), threading.Barrier(4), []

    def call(kept):
        gate.wait()
        granted.extend(kept.take(key).is_granted for _ in range(25))

    threads = [threading.Thread(target=call, args=(kept,)) for kept in (one, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(granted), sum(granted)) == (100, 40)


@pytest.fixture
def shared(postgresql):
    """A database that several processes may serve with."""
    opened = postgresql.copy()
    yield opened
    postgresql.drop(opened)


def test_a_clock_that_was_set_back_keeps_nobody_out(shared):
    """A bucket that would be full later than any can be is full; a smaller burst than before only waits."""
    kept, key = SharedBuckets(shared, SLOW), new_id()
    kept.take(key)
    with shared.write() as unit:
        unit.execute(sa.update(ApiRate).values(full_at=datetime(2199, 1, 1, tzinfo=UTC)))
    taken = kept.take(key)
    assert taken.is_granted
    assert taken.full_in == SLOW.each

    assert not SharedBuckets(shared, BucketRate(1 / 3600, 1)).take(key).is_granted


def test_a_key_leaves_one_row(shared):
    """However much it calls, and refusals write nothing."""
    kept, keys = SharedBuckets(shared, SLOW), [new_id() for _ in range(3)]
    for key in keys * 5:
        kept.take(key)

    with shared.read() as unit:
        assert sorted(row.key_id for row in unit.all(ApiRate, sa.select(table_of(ApiRate)))) == sorted(keys)


def test_a_count_waits_for_no_standby():
    """Nor for the disk: it is lost with the server, and nobody is harmed; units of work wait, as they must."""
    with running() as cluster:
        database = Database(cluster.primary.url("receipted"))
        migrate.upgrade(database)
        cluster.primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        cluster.primary.execute("SELECT pg_reload_conf()")
        kept, key = SharedBuckets(database, SLOW), new_id()
        shown = "SHOW synchronous_standby_names"
        until(lambda: cluster.primary.execute(shown) == [("nobody",)], DEADLINE_S, lambda: "the setting is not read")

        assert [kept.take(key).is_granted for _ in range(4)] == [True, True, True, False]
        database.close()


def test_behind_a_pooler_of_transactions_a_count_leaves_nothing_in_a_session():
    """What is said of its commit is said for it alone: the next one in the session waits for the disk again."""
    with running() as cluster, pooling(cluster.primary, sessions=1) as port:
        migrate.upgrade(direct := Database(cluster.primary.url("receipted")))
        direct.close()
        pooled = Database(f"postgresql://postgres@127.0.0.1:{port}/receipted?pooler=transaction")
        kept, key = SharedBuckets(pooled, BucketRate(1 / 3600, 12)), new_id()
        assert [kept.take(key).is_granted for _ in range(13)] == [True] * 12 + [False]
        pooled.close()
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/receipted") as bare:
            assert bare.execute("SHOW synchronous_commit").fetchone() == ("on",)
            bare.rollback()
