"""When asking stops and tries again: pure rules, and what is counted beside the account's budget."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from poller import circuit_breaker
from poller.circuit_breaker import OUTAGES_TO_OPEN, BreakerChange, ProviderSign, classify, open_duration
from providers.errors import ProviderError
from storage import rate_limits
from storage.rate_limits import Gate

LEASE = timedelta(seconds=120)
AWAY = ProviderError("no connection", may_retry=True)


@pytest.mark.parametrize(
    ("error", "sign"),
    [
        (None, ProviderSign.ANSWER),
        (ProviderError("gone", http_status=404), ProviderSign.ANSWER),
        (ProviderError("the key is revoked", http_status=401), ProviderSign.ANSWER),
        (ProviderError("slow down", http_status=429, may_retry=True, retry_after=9), ProviderSign.ANSWER),
        (ProviderError("broken", http_status=500, may_retry=True), ProviderSign.OUTAGE),
        (ProviderError("later", http_status=503, may_retry=True), ProviderSign.OUTAGE),
        (ProviderError("the provider cannot be reached (ConnectError)", may_retry=True), ProviderSign.OUTAGE),
        (ProviderError("no answer (ReadTimeout)", may_retry=True, is_ambiguous=True), ProviderSign.OUTAGE),
        (ProviderError("the provider's answer is too large", is_ambiguous=True), ProviderSign.NOTHING),
        (ProviderError("asking failed here", provider_code="internal"), ProviderSign.NOTHING),
    ],
)
def test_what_an_end_says_of_the_provider(error, sign):
    assert classify(error) is sign


def test_the_waits_grow_from_five_seconds_to_five_minutes():
    waits = [open_duration(failures, 0.0) for failures in range(1, 12)]

    assert waits[: OUTAGES_TO_OPEN - 1] == [None] * (OUTAGES_TO_OPEN - 1)
    assert [wait.total_seconds() for wait in waits[OUTAGES_TO_OPEN - 1 :]] == [5, 10, 20, 40, 80, 160, 300, 300, 300]


@given(st.integers(OUTAGES_TO_OPEN, 10**9), st.floats(0, 1))
def test_jitter_makes_a_wait_a_little_longer_and_never_too_long(failures, jitter):
    least, wait = open_duration(failures, 0.0), open_duration(failures, jitter)

    assert least <= wait <= min(least * 1.2, timedelta(minutes=5)) + timedelta(microseconds=1)


@pytest.fixture
def asked(database, clock):
    return Asked(database, clock)


class Asked:
    """One account, asked as the poller asks."""

    def __init__(self, database, clock):
        self.database, self.clock = database, clock

    def gate(self):
        with self.database.write() as unit:
            return rate_limits.gate(unit, "acme", self.clock(), LEASE)

    def ended(self, error=None, *, was_probe=False):
        with self.database.write() as unit:
            return circuit_breaker.record_outcome(unit, "acme", error, self.clock(), 0.0, was_probe=was_probe)

    def away(self, times=OUTAGES_TO_OPEN):
        return [self.ended(AWAY) for _ in range(times)][-1]


def test_outages_in_a_row_open_it_and_an_answer_between_them_does_not(asked):
    asked.away(OUTAGES_TO_OPEN - 1)
    asked.ended()
    assert asked.away(OUTAGES_TO_OPEN - 1) is None
    assert asked.gate() is Gate.CLOSED

    assert asked.ended(AWAY) == BreakerChange(timedelta(seconds=5))
    assert asked.gate() is Gate.OPEN


def test_a_refusal_and_a_429_open_nothing(asked):
    for _ in range(20):
        asked.ended(ProviderError("slow down", http_status=429, may_retry=True))
        asked.ended(ProviderError("asking failed here", provider_code="internal"))

    assert asked.gate() is Gate.CLOSED


def test_after_the_wait_one_question_probes(asked):
    asked.away()
    asked.clock.advance(4.999)
    assert asked.gate() is Gate.OPEN
    asked.clock.advance(0.001)

    assert [asked.gate() for _ in range(3)] == [Gate.PROBE, Gate.OPEN, Gate.OPEN]


def test_a_probe_that_fails_doubles_the_wait_and_others_do_not(asked):
    asked.away()
    assert asked.away(7) is None, "what was under way when it opened"
    waits = []
    for _ in range(8):
        asked.clock.advance(300)
        assert asked.gate() is Gate.PROBE
        waits.append(asked.ended(AWAY, was_probe=True).opened_for.total_seconds())
        assert asked.gate() is Gate.OPEN

    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]


def test_an_answer_closes_it_for_everybody_once(asked):
    asked.away()
    asked.clock.advance(5)
    assert asked.gate() is Gate.PROBE
    assert asked.ended(ProviderError("gone", http_status=404), was_probe=True) == BreakerChange()

    assert asked.ended() is None
    assert asked.gate() is Gate.CLOSED
    assert asked.away(OUTAGES_TO_OPEN - 1) is None


def test_a_probe_that_is_never_heard_of_again_is_handed_on(asked):
    asked.away()
    asked.clock.advance(5)
    assert asked.gate() is Gate.PROBE
    asked.clock.advance(LEASE.total_seconds())

    assert [asked.gate(), asked.gate()] == [Gate.PROBE, Gate.OPEN]


def test_what_changes_is_logged():
    with capture_logs() as logs:
        circuit_breaker.log_change("acme", None)
        circuit_breaker.log_change("acme", BreakerChange(timedelta(seconds=5)))
        circuit_breaker.log_change("acme", BreakerChange())

    assert [(line["event"], line["log_level"], line.get("seconds")) for line in logs] == [
        ("breaker.opened", "warning", 5.0),
        ("breaker.closed", "info", None),
    ]
