"""Money is a whole number of minor units and an ISO 4217 currency; never a float."""

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import lru_cache

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


@lru_cache(maxsize=1000)
def currency_code(value: str) -> str:
    """The upper-case ISO 4217 code; raises InvalidAmount for anything but three ASCII letters."""
    code = value.strip().upper()
    if len(code) != 3 or not code.isascii() or not code.isalpha():
        raise InvalidAmount("currency must be a three-letter ISO 4217 code", param="currency", code="invalid_currency")
    return code


def exponent(currency: str) -> int:
    """How many decimal places the currency's minor unit stands for (2 unless ISO 4217 says otherwise)."""
    return _EXPONENTS.get(currency_code(currency), 2)


def to_minor(amount: str | int | Decimal, currency: str) -> int:
    """The exact number of minor units in a decimal amount of major units.

    Raises InvalidAmount when the amount is no finite decimal, is finer than the minor unit, or is out of range:
    a remainder is never rounded away.
    """
    try:
        scaled = Decimal(amount).scaleb(exponent(currency), _EXACT)
    except (ArithmeticError, ValueError, TypeError) as fault:
        raise InvalidAmount("amount must be a decimal number", param="amount") from fault
    if not scaled.is_finite() or abs(scaled) > MAX_MINOR:
        raise InvalidAmount("amount is out of range", param="amount")
    minor = int(scaled)
    if minor != scaled:
        raise InvalidAmount(f"amount has more decimal places than {currency_code(currency)} allows", param="amount")
    return minor


@lru_cache(maxsize=10_000)
def from_minor(minor: int, currency: str) -> str:
    """The decimal string of major units, with exactly the currency's decimal places."""
    places = exponent(currency)
    return f"{Decimal(minor).scaleb(-places):.{places}f}"
