"""Money as whole minor units with an ISO 4217 currency; never a float."""

import re
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import lru_cache
from typing import Final

from statemachine.errors import InvalidAmount

#: ISO 4217 minor-unit exponents that differ from 2.
_EXPONENTS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV"), 0
    ),
    **dict.fromkeys(("XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}

#: Larger amounts are a unit mistake or an attack; SQLite and PostgreSQL hold them with room to spare.
MAX_MINOR = 10**15

#: Python's default context would round away what lies beyond 28 digits.
_EXACT = Context(prec=60, traps=[InvalidOperation, Overflow, Inexact])


#: What an amount looks like where it is text: Python's own reading of numbers takes far more, such as 1_000, 1e3, +5,
#: white space and the digits of every script.
_AMOUNT: Final = re.compile(r"[0-9]+(\.[0-9]+)?")

#: More characters than any amount has.
_MAX_AMOUNT_CHARS: Final = 40

#: Checked before the case is changed, which makes ASCII of some letters that are none.
_CURRENCY: Final = re.compile("[A-Za-z]{3}")


@lru_cache(maxsize=1000)
def currency_code(value: str) -> str:
    """Return the upper-case ISO 4217 code.

    Raises InvalidAmount for anything but three ASCII letters.
    """
    if _CURRENCY.fullmatch(value) is None:
        raise InvalidAmount("currency must be a three-letter ISO 4217 code", param="currency", code="invalid_currency")
    return value.upper()


def exponent(currency: str) -> int:
    """Return the currency's decimal places (2 unless ISO 4217 says otherwise)."""
    return _EXPONENTS.get(currency_code(currency), 2)


def currencies_by_exponent() -> dict[int, list[str]]:
    """Return the currencies whose decimal places are not 2, by their number."""
    found: dict[int, list[str]] = {}
    for currency, places in _EXPONENTS.items():
        found.setdefault(places, []).append(currency)
    return found


def to_minor(amount: str | int | Decimal, currency: str) -> int:
    """Convert a decimal amount of major units to minor units, exactly.

    Text is ASCII digits with at most one point between them: no sign, no exponent, no separators, no white space.
    Raises InvalidAmount for any other, and when the amount is negative, no finite decimal, finer than the minor unit,
    or out of range: a remainder is never rounded away.
    """
    if isinstance(amount, str) and (len(amount) > _MAX_AMOUNT_CHARS or _AMOUNT.fullmatch(amount) is None):
        raise InvalidAmount("amount must be a decimal number, such as 10.00", param="amount")
    try:
        scaled = Decimal(amount).scaleb(exponent(currency), _EXACT)
    except (ArithmeticError, ValueError, TypeError) as fault:
        raise InvalidAmount("amount must be a decimal number", param="amount") from fault
    if not scaled.is_finite() or abs(scaled) > MAX_MINOR:
        raise InvalidAmount("amount is out of range", param="amount")
    if scaled < 0:
        raise InvalidAmount("amount is negative", param="amount")
    minor = int(scaled)
    if minor != scaled:
        raise InvalidAmount(f"amount has more decimal places than {currency_code(currency)} allows", param="amount")
    return minor


@lru_cache(maxsize=10_000)
def from_minor(minor: int, currency: str) -> str:
    """Format minor units as a decimal string with the currency's decimal places."""
    places = exponent(currency)
    return f"{Decimal(minor).scaleb(-places):.{places}f}"


def amount_text(minor: int, currency: str | None) -> str:
    """Write an amount in major units with its currency, else in minor units.

    Any text may come as the currency: providers write what is none.
    """
    if not currency:
        return f"{minor} minor units"
    try:
        return f"{from_minor(minor, currency)} {currency}"
    except InvalidAmount:
        return f"{minor} minor units of {currency}"
