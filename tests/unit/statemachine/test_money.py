"""Money is exact or refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.errors import InvalidAmount
from statemachine.money import MAX_MINOR, currency_code, exponent, from_minor, to_minor

#: What some reader of numbers takes for one.
NO_AMOUNTS = (
    *(
        "1_000.00",
        " 10.00",
        "10.00 ",
        "10.00\n",
        "\u00a010",
        "１０.００",
        "١٠.٠٠",
        "1e3",
        "1E3",
        "+5.00",
        "-5.00",
        "−5",
    ),
    *(
        "1,000.00",
        "1.000,00",
        "1'000",
        "1 000",
        ".50",
        "5.",
        ".",
        "1.2.3",
        "0x10",
        "0b1",
        "1/2",
        "½",
        "¹",
        "$5",
        "5.00USD",
    ),
)

#: Three letters to some reader, or three after their case was changed.
NO_CURRENCIES = (
    "",
    "US",
    "USDT",
    "U5D",
    "ßab",
    "U D",
    " usd ",
    "usd\n",
    "ıqd",
    "ßd",
    "ﬁm",
    "ＵＳＤ",
    "ÜSD",
    "ſek",
    "u\u0301sd",
)

CURRENCIES = st.sampled_from(["USD", "EUR", "JPY", "KWD", "CLF", "GBP", "ARS"])


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("4.50", "USD", 450),
        ("4.5", "usd", 450),
        (4, "USD", 400),
        (Decimal("0.01"), "USD", 1),
        ("500", "JPY", 500),
        ("1.234", "KWD", 1234),
        ("1.2345", "CLF", 12345),
        ("4.500", "USD", 450),
        ("0.00", "USD", 0),
        (Decimal("-0.0"), "USD", 0),
        (Decimal("1E+2"), "USD", 10_000),
    ],
)
def test_to_minor(amount, currency, minor):
    """An amount of major units is the exact number of its currency's minor units."""
    assert minor == to_minor(amount, currency)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("4.505", "USD"),
        ("0.5", "JPY"),
        ("1.2345", "KWD"),
        ("NaN", "USD"),
        ("Infinity", "USD"),
        ("-Infinity", "USD"),
        ("sNaN", "USD"),
        ("four", "USD"),
        ("", "USD"),
        ("10000000000000.01", "USD"),
        ("1e999999", "USD"),
        ("1.00000000000000000000000000000001", "USD"),
        *((text, "USD") for text in NO_AMOUNTS),
        (-1, "USD"),
        (Decimal("-0.01"), "USD"),
        ("1", "US"),
        ("1", "U$D"),
        ("1", "ÄÖÜ"),
        ("1", ""),
    ],
)
def test_refuses_what_is_not_exact(amount, currency):
    """A remainder, a value out of range or a word that is no amount is refused, never rounded."""
    with pytest.raises(InvalidAmount):
        to_minor(amount, currency)


@given(st.integers(0, MAX_MINOR), CURRENCIES)
def test_there_and_back(minor, currency):
    """Every whole number of minor units survives being written as a decimal string."""
    text = from_minor(minor, currency)

    assert minor == to_minor(text, currency)
    assert exponent(currency) == len(text.partition(".")[2])
    assert "E" not in text


_LOOSE = st.text(st.sampled_from("0123456789.,_eE+- ١１\n"), max_size=12)


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.text(max_size=40) | _LOOSE, CURRENCIES)
def test_is_total(amount, currency):
    """Whatever an amount is, it is exact or refused by name."""
    try:
        minor = to_minor(amount, currency)
    except InvalidAmount:
        return

    assert Decimal(amount) == Decimal(minor).scaleb(-exponent(currency))
    assert isinstance(amount, Decimal) or set(amount) <= set("0123456789.")


def test_currency_code():
    """Case does not matter; anything but three ASCII letters is refused."""
    assert currency_code("uSd") == "USD"
    for wrong in NO_CURRENCIES:
        with pytest.raises(InvalidAmount):
            currency_code(wrong)
