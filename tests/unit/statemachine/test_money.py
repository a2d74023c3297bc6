"""Money is exact or refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.errors import InvalidAmount
from statemachine.money import MAX_MINOR, currency_code, exponent, from_minor, to_minor

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
        ("-4.50", "USD", -450),
        ("4.500", "USD", 450),
        ("1e2", "USD", 10_000),
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


@given(st.integers(-MAX_MINOR, MAX_MINOR), CURRENCIES)
def test_there_and_back(minor, currency):
    """Every whole number of minor units survives being written as a decimal string."""
    text = from_minor(minor, currency)

    assert minor == to_minor(text, currency)
    assert exponent(currency) == len(text.partition(".")[2])
    assert "E" not in text


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.text(max_size=40), CURRENCIES)
def test_is_total(amount, currency):
    """Whatever an amount is, it is exact or refused by name."""
    try:
        minor = to_minor(amount, currency)
    except InvalidAmount:
        return

    assert Decimal(amount) == Decimal(minor).scaleb(-exponent(currency))


def test_currency_code():
    """White space and case do not matter; anything but three ASCII letters is refused."""
    assert currency_code(" usd ") == "USD"
    for wrong in ("", "US", "USDT", "U5D", "ßab", "U D"):
        with pytest.raises(InvalidAmount):
            currency_code(wrong)
