"""Hostile deliveries against every provider's verifier: whatever arrives, it is rejected, and nothing else happens.

The long profile draws 100,000 combinations from a seed that it prints; FUZZ_SEED=<number> repeats one.
"""

import os
import random
import string
import time
from datetime import UTC, datetime, timedelta

import pytest

from providers.catalogue import PROVIDERS
from providers.contract import Delivery, Statement
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Source

NOW = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)
WINDOW = Window()
RING = KeyRing(
    (
        Key("old", b"an-old-secret-that-nobody-can-guess", not_after=NOW + timedelta(hours=1)),
        Key("new", "ein-geheimer-Schlüssel-von-heute".encode(), not_before=NOW - timedelta(hours=1)),
        Key("ended", b"a-secret-that-has-ended-long-ago", not_after=NOW - timedelta(days=1)),
    )
)

HEADERS = (
    *("authorization", "x-stablegenius-signature", "x-stablegenius-timestamp", "x-signature", "x-timestamp"),
    *("banked-signature", "x-api-key", "content-type", "host", "x-forwarded-proto", ""),
)
STAMPS = ("1775037600", "2026-04-01T10:00:00Z", "2026-04-01T10:00:00+00:00", "2026-04-01 10:00:00")
PIECES = (
    *("", " ", "=", ".", ",", ":", "\t", "\x00", "\x7f", "\xff", "é", "ß", "\u202e", "\udc80", "٣", "²", "Ⅷ"),
    *("sha256=", "Bearer ", "bearer ", "Basic ", "v1,", "t=", "-", "+", "0x", "1e9", "nan", "inf", "True", "null"),
    *("0", "00", "9" * 11, "9" * 13, "9" * 400, "0" * 63, "a" * 64, "A" * 64, "g" * 64, "==", "AA==", "a-_b"),
    *STAMPS,
    *("0000-00-00T00:00:00Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-02-30T00:00:00Z"),
    *("1775037600" + "." + "a" * 64, "2026-W14-3", "20260401T100000Z", "2026-04-01T10:00:00,5Z", "-1", "1775037600.0"),
)
BODIES = (
    *(b"", b"\x00", b"\xff\xfe\xfd", b"{}", b"[]", b"null", b'{"id":"evt_1"}', b'{"id":1e999999}', b'{"id":NaN}'),
    *(b"[" * 3000, b'{"a":' * 2000, b'"\\ud800"', b"a" * 70_000, b'{"external_id":"x","status":"paid"}'),
)


#: The others sign nothing, and state nothing: tests/contract/providers/test_pages.py.
SIGNED = [name for name, kind in PROVIDERS.items() if kind.authentication is not None]


def provider(name):
    found = PROVIDERS[name]
    return found(found.options_type())


def value(rng):
    kind = rng.random()
    if kind < 0.55:
        return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 4)))
    if kind < 0.75:
        return "".join(rng.choice(string.hexdigits) for _ in range(rng.choice((1, 63, 64, 65, 128))))
    if kind < 0.95:
        return "".join(chr(rng.randrange(256)) for _ in range(rng.randint(0, 80)))
    return rng.choice(("x", "0", "é", "=", "9")) * rng.choice((1000, 20_000))


def near(rng, name, header):
    """A value that gets far: the right prefix and a plausible stamp, with a signature that cannot be right."""
    digest = "".join(rng.choice("0123456789abcdef") for _ in range(64))
    if "timestamp" in header:
        return rng.choice(STAMPS)
    prefix = {"authorization": "Bearer ", "x-stablegenius-signature": "sha256=", "banked-signature": "1775037600."}
    return prefix.get(header, "") + rng.choice((digest, digest.upper(), digest[:-1] + "é", digest + " "))


def hostile(rng, name):
    headers = []
    for header in rng.choices(HEADERS, k=rng.randint(0, 7)):
        given = near(rng, name, header) if rng.random() < 0.4 else value(rng)
        headers.append((header, given))
        if rng.random() < 0.15:
            headers.append((header, rng.choice((given, value(rng)))))
    body = rng.choice(BODIES) if rng.random() < 0.7 else rng.randbytes(rng.randint(0, 200))
    return Delivery(body, tuple(headers))


def reject(subject, delivery, now):
    """None when the delivery is rejected as it must be; otherwise what happened instead."""
    try:
        verified = subject.verify(delivery, RING, WINDOW, now)
    except DeliveryRejected:
        return None
    except Exception as fault:  # noqa: BLE001 - the point of the test
        return f"leaked {type(fault).__name__}: {fault}"
    return f"accepted by {verified.key_id}"


def run(name, seed, count):
    rng, subject = random.Random(f"{seed}/{name}"), provider(name)
    moments = (NOW, datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    for number in range(count):
        delivery, now = hostile(rng, name), rng.choice(moments)
        wrong = reject(subject, delivery, now)
        assert wrong is None, f"seed {seed}, number {number}: {wrong}: {delivery!r:.2000}"
        if number % 10 == 0:
            key = subject.identity(delivery, now)
            assert 1 <= len(key) <= 200, f"seed {seed}, number {number}: a key of {len(key)} characters"
            subject.parse(Statement(rng.choice(list(Source)), delivery.body, now))


@pytest.mark.parametrize("name", SIGNED)
def test_hostile_deliveries_are_rejected_and_nothing_else(name):
    """Five hundred hostile deliveries to each verifier end in DeliveryRejected, and have a key and a reading."""
    run(name, 20260401, 500)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SIGNED)
def test_a_hundred_thousand_hostile_deliveries_are_rejected(name):
    """25,000 hostile deliveries to each of the four verifiers, of a new seed at every run, end in DeliveryRejected."""
    seed = int(os.environ.get("FUZZ_SEED") or time.time_ns())  # noqa: TID251 - a test's own knob
    print(f"FUZZ_SEED={seed}")
    run(name, seed, 25_000)
