from hypothesis import given
from hypothesis import strategies as st

from receiver import http
from receiver.http import UnverifiedLimit


def test_so_many_a_minute_are_within_the_limit():
    """All of them at once, then none, then evenly again."""
    limit = UnverifiedLimit(60)
    assert [limit.allows("a", "shop", 0.0) for _ in range(65)] == [True] * 60 + [False] * 5
    assert [limit.allows("a", "shop", 1.0) for _ in range(2)] == [True, False]
    assert [limit.allows("a", "shop", 1000.0) for _ in range(61)] == [True] * 60 + [False]


def test_clients_and_accounts_do_not_share_a_limit():
    """One who forges does not use up the allowance of another, nor that of another account."""
    limit = UnverifiedLimit(1)
    keys = [("a", "one"), ("b", "one"), ("a", "two")]
    assert [limit.allows(*key, 0.0) for key in keys] == [True] * 3
    assert [limit.allows(*key, 0.0) for key in keys] == [False] * 3


def test_a_clock_that_is_set_back_neither_fills_nor_empties():
    """Time that runs backwards counts as none."""
    limit = UnverifiedLimit(1)
    assert [limit.allows("a", "shop", at) for at in (100.0, 40.0, 99.0)] == [True, False, False]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=200).map(sorted), st.integers(1, 20))
def test_no_minute_has_more_than_twice_the_limit(instants, per_minute):
    """A full bucket and what refills within the minute."""
    limit = UnverifiedLimit(per_minute)
    within = [at for at in instants if limit.allows("a", "shop", at)]
    for start in within:
        assert len([at for at in within if start <= at < start + 60]) <= 2 * per_minute


def test_the_memory_of_clients_is_bounded(monkeypatch):
    """Who has not been heard of for longest is forgotten; many addresses do not fill the memory."""
    monkeypatch.setattr(http, "MAX_CLIENTS", 3)
    limit = UnverifiedLimit(1)
    for client in ("a", "b", "c", "a", "d"):
        limit.allows(client, "shop", 0.0)
    assert len(limit._buckets) == 3
    assert not limit.allows("a", "shop", 0.0)
    assert limit.allows("b", "shop", 0.0)


def test_addresses_of_one_ipv6_network_are_one_client():
    """A client that has a /64 cannot get round its limit by changing addresses within it."""
    limit = UnverifiedLimit(1)

    assert limit.allows("2001:db8:0:7::1", "acme", 0)
    assert not limit.allows("2001:db8:0:7::2", "acme", 0)
    assert limit.allows("2001:db8:0:8::1", "acme", 0)


def test_ipv4_addresses_that_a_socket_shows_as_ipv6_are_clients_of_their_own():
    """All of them lie in one /64: one who forges must not use up the allowance of everybody."""
    limit = UnverifiedLimit(1)

    assert limit.allows("::ffff:192.0.2.1", "acme", 0)
    assert limit.allows("::ffff:192.0.2.2", "acme", 0)
    assert not limit.allows("192.0.2.1", "acme", 0)
    assert not limit.allows("::FFFF:c000:202", "acme", 0)
