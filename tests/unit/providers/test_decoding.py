"""Reading bytes that others wrote: exact where it succeeds, named where it does not, and never anything else."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from providers.api_calls import ClientCredentials
from providers.contract import HttpAnswer
from providers.decoding import (
    Unreadable,
    exact_minor,
    fact,
    instant,
    json_object,
    json_value,
    own_words,
    retry_after,
    sane_wait,
    word,
    words_under,
)
from providers.errors import ProviderError
from statemachine.errors import InvalidAmount

AT = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)


def test_fractions_are_exact_and_integers_stay_integers():
    assert json_object(b'{"a":4.50,"b":450,"c":1e2}') == {"a": Decimal("4.50"), "b": 450, "c": Decimal(100)}
    assert str(json_object(b'{"a":4.50}')["a"]) == "4.50"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff", b'"\xff"', b"NaN", b"Infinity", b"1e99999999999999999999", b'"\\ud800"', b"{}x", b"'a'"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xef\xbb\xbf" * 2 + b"{}"),
    ],
)
def test_what_is_not_json_is_unreadable(body):
    with pytest.raises(Unreadable) as caught:
        json_value(body)
    assert len(str(caught.value)) < 60


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true"])
def test_other_json_is_no_object(body):
    with pytest.raises(Unreadable):
        json_object(body)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *(("pi_1", "pi_1"), ("x" * 200, "x" * 200), ("é", "é"), ("a b", "a b")),
        *(("", None), ("x" * 201, None), ("a\0", None), ("a\n", None), ("\u202e", None), (7, None), (None, None)),
    ],
)
def test_a_word_is_short_printable_text(value, found):
    assert word(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *(("x", "x"), (7, "7"), (Decimal("0.045"), "0.045"), (True, "true"), (False, "false"), (-1, "-1")),
        *((None, None), ([], None), ({}, None), ("", None), ("a\0b", None), ("x" * 2001, None), (10**400, None)),
    ],
)
def test_a_fact_is_the_text_of_a_plain_value(value, found):
    assert fact(value) == found


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [
        *((Decimal("4.50"), "USD", 450), (Decimal("4.5"), "usd", 450), (4, "USD", 400), ("0.01", "USD", 1)),
        *(
            (Decimal("1.000"), "USD", 100),
            (Decimal("1.234"), "KWD", 1234),
            (100, "JPY", 100),
        ),
        *((Decimal("0E-20"), "USD", 0), (Decimal("1E+3"), "USD", 100_000), (0, "USD", 0)),
    ],
)
def test_an_amount_is_exact_to_the_minor_unit(value, currency, minor):
    found = exact_minor(value, currency)
    assert found == minor
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [
        *(
            Decimal("4.505"),
            Decimal("NaN"),
            Decimal("sNaN"),
            Decimal("Infinity"),
            Decimal("1E+999999"),
            10**30,
            10**400,
        ),
        *(Decimal("1E-999999"), Decimal("1.00000000000000000000000000000000001"), Decimal("1E+14")),
        *(
            Decimal(-1),
            -1,
            "-1",
            "1e2",
            " 1",
            "1_0",
            "+1",
            "",
            "x",
            "1,5",
            "1" * 41,
            "NaN",
            "1e999999999",
            True,
            4.5,
            None,
            [],
            {},
            b"1",
        ),
    ],
)
def test_an_amount_that_is_not_exact_is_none(value):
    with pytest.raises(InvalidAmount):
        exact_minor(value, "USD")


def test_a_currency_that_is_none_has_no_amounts():
    with pytest.raises(InvalidAmount):
        exact_minor(1, "dollars")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *(("2026-04-01T10:00:00Z", AT), ("2026-04-01T12:00:00+02:00", AT)),
        *(("2026-04-01T10:00:00", None), ("2026-04-01", None), ("0001-01-01T00:00:00+14:00", None), ("x", None)),
        *((1775037600, None), (None, None), ("2026" * 20, None)),
    ],
)
def test_an_instant_has_a_zone(value, found):
    assert instant(value) == found


def test_words_are_found_at_any_depth_and_the_search_is_bounded():
    deep = {"a": [{"id": "x"}, {"b": {"order_id": ["y", "x", 3]}}], "name": "z"}
    assert words_under(deep, lambda key, _text: key.endswith("id")) == ("x", "y")
    wide = {"a": [{"id": str(n)} for n in range(4000)]}
    assert len(words_under(wide, lambda key, _text: key == "id", limit=7)) == 7
    assert words_under([0] * 20_000 + ["late"], lambda _key, _text: True) == ()


def test_own_words_are_one_short_printable_line():
    assert own_words("a\nb\0c\u202ed") == "a b c d"
    assert len(own_words("x" * 10_000)) == 200
    assert own_words(7) == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0.0), (" 12 ", 12.0), ("Wed, 01 Apr 2026 10:00:30 GMT", 30.0), ("Wed, 01 Apr 2026 09:00:00 GMT", 0.0)),
        *(("", None), ("-1", None), ("1.5", None), ("x", None), ("999999", None), ("٣", None)),
        *(("Wed, 01 Apr 2027 10:00:30 GMT", None), ("Wed, 99 Apr 99999 10:00:30 GMT", None)),
    ],
)
def test_retry_after_is_read_or_left(text, seconds):
    assert retry_after({"retry-after": text}, AT) == seconds


def test_no_retry_after_header_raises():
    rng = random.Random(20260401)
    pieces = (
        "Wed,",
        "01",
        "Apr",
        "2026",
        "10:00:30",
        "GMT",
        "+0000",
        "-9999",
        "9" * 12,
        "0",
        ":",
        "\x00",
        "é",
        "7:",
        "Z",
    )
    for _ in range(3000):
        found = retry_after({"retry-after": " ".join(rng.choice(pieces) for _ in range(rng.randrange(8)))}, AT)
        assert found is None or 0 <= found <= 86_400


def test_a_wait_of_more_than_a_day_is_a_misread_unit():
    assert (sane_wait(86_400.0), sane_wait(86_401.0), sane_wait(-5)) == (86_400.0, None, 0.0)


class Granting:
    """A token endpoint that answers whatever it is told."""

    def __init__(self, body):
        self.body, self.calls = body, 0

    async def turn(self):
        """At once."""

    async def send(self, method, url, *, headers, content=b""):
        self.calls += 1
        return HttpAnswer(200, {}, self.body, AT)

    async def pause(self, seconds):
        raise AssertionError("nothing to pause for")


def credentials(transport, clock):
    return ClientCredentials(
        "https://provider.example/token", "id", "secret", transport, clock, lambda answer: ProviderError("no")
    )


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b'{"access_token":"a"}', b'{"access_token":7,"expires_in":1}', b'{"access_token":"\xff"}'),
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_an_unreadable_token_answer_is_a_provider_error(body):
    with pytest.raises(ProviderError, match="unreadable"):
        asyncio.run(credentials(Granting(body), lambda: AT).header("GET", "/", b""))


@pytest.mark.parametrize(
    ("expires_in", "kept"), [("3600", 3570), ("40", 20), ("0", 0), ("-5", 0), ("1e300", 86_370), ("0.5", 0.25)]
)
def test_a_token_is_kept_until_shortly_before_its_end(expires_in, kept):
    transport = Granting(b'{"access_token":"t","expires_in":%s,"token_type":"bearer"}' % expires_in.encode())
    now = AT
    subject = credentials(transport, lambda: now)

    async def talk():
        nonlocal now
        await subject.header("GET", "/", b"")
        if kept:
            now = AT + timedelta(seconds=kept) - timedelta(microseconds=1)
            assert await subject.header("GET", "/", b"") == {"authorization": "Bearer t"}
            assert transport.calls == 1
        now = AT + timedelta(seconds=kept)
        await subject.header("GET", "/", b"")
        assert transport.calls == 2

    asyncio.run(talk())
