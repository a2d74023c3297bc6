"""Money of a thing, read as a page describes it: amounts, sums and parts."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from providers.decoding import UNDIVIDED, Unreadable, exact_minor, name, word
from providers.engine.page import KindSection, MoneySection, PartSection, Pointers
from providers.engine.pointers import Get, InvalidPage, first, pointer
from statemachine.errors import InvalidAmount
from statemachine.money import MAX_MINOR, currency_code, exponent
from statemachine.sums import SUM_NAMES, UNSAID, Part, PartKind, PartStatus, Sums

#: More captures, refunds and disputes than a page of them within a payment has.
_MAX_PARTS: Final = 500

ReadMoney = Callable[[object], tuple[int | None, str | None, Sums]]
ReadParts = Callable[[object], tuple[Part, ...]]
ReadPart = Callable[[object], tuple[Part, str | None]]


def amounts(money: MoneySection) -> Callable[[object, str | None], int]:
    """Return the reader of amounts: to whole minor units of a currency, exactly.

    It raises InvalidAmount, and Unreadable where no currency is known.
    """
    is_minor, accepts = money.unit == "minor", money.accepts
    places = {currency_code(code): number for code, number in money.places.items()}

    def read(value: object, currency: str | None) -> int:
        if accepts != "any" and isinstance(value, str) != (accepts == "text"):
            raise InvalidAmount(f"amount is no {accepts}", param="amount")
        if currency is None:
            raise Unreadable("an amount without a currency")
        if is_minor and currency not in places:
            return exact_minor(value, UNDIVIDED)
        if currency not in places:
            return exact_minor(value, currency)
        return _by_places(value, currency, places[currency], is_minor=is_minor)

    return read


def _by_places(value: object, currency: str, places: int, *, is_minor: bool) -> int:
    """Convert an amount where the provider's places differ from those of ISO 4217."""
    shift = exponent(currency) - places
    if not is_minor:
        return exact_minor(value, currency)
    units = exact_minor(value, UNDIVIDED)
    scaled = Decimal(units).scaleb(shift)
    if scaled != int(scaled) or abs(scaled) > MAX_MINOR:
        raise InvalidAmount("amount has more decimal places than the currency allows", param="amount")
    return int(scaled)


def money_of(section: KindSection, money: MoneySection, words: str) -> ReadMoney:
    """Compile the reader of a thing's amount, currency and sums."""
    amount_of = _optional(section.amount)
    currency_of, sums_of = _currency(section.currency, words), _sums(section.totals, money)
    minor, default_currency = amounts(money), money.default_currency

    def read(thing: object) -> tuple[int | None, str | None, Sums]:
        code = currency_of(thing)
        unit = code or default_currency
        told = None if amount_of is None else amount_of(thing)
        amount = None if told is None else minor(told, unit)
        return amount, code, UNSAID if sums_of is None else sums_of(thing, unit)

    return read


def totals_of(totals: Mapping[str, Pointers], currency: Pointers, money: MoneySection, words: str) -> ReadMoney:
    """Compile the reader of the sums that an event states, without an amount."""
    currency_of, sums_of = _currency(currency, words), _sums(totals, money)
    if sums_of is None:
        raise InvalidPage("totals need pointers to them", ("totals",))

    def read(thing: object) -> tuple[int | None, str | None, Sums]:
        code = currency_of(thing)
        return None, code, sums_of(thing, code or money.default_currency)

    return read


def part_of(section: PartSection, money: MoneySection) -> ReadPart:
    """Compile the reader of one capture, refund or dispute, and of its currency."""
    kind, statuses = PartKind(section.kind), {word_: PartStatus(told) for word_, told in section.states.items()}
    id_of, amount_of, status_of = first(section.id), _optional(section.amount), first(section.status)
    currency_of, minor = _currency(section.currency, kind.value), amounts(money)

    def read(thing: object) -> tuple[Part, str | None]:
        named = name(id_of(thing))
        if named is None:
            raise Unreadable(f"a {kind.value} without an id")
        status = statuses.get(word(status_of(thing)) or "")
        if status is None:
            raise Unreadable(f"a {kind.value} with a status that the page does not know")
        code = currency_of(thing)
        told = None if amount_of is None else amount_of(thing)
        amount = None if told is None else minor(told, code or money.default_currency)
        return Part(kind, named, status, amount), code

    return read


def parts_of(sections: list[PartSection], money: MoneySection) -> ReadParts | None:
    """Compile the reader of the parts that a thing lists; None where it lists none."""
    readers = [(_list_at(section), part_of(section, money)) for section in sections]
    if not readers:
        return None

    def read(thing: object) -> tuple[Part, ...]:
        found: list[Part] = []
        for listed, one in readers:
            things = listed(thing)
            if things is None:
                continue
            if not isinstance(things, list) or len(things) > _MAX_PARTS:
                raise Unreadable("the captures, refunds or disputes are no list, or too long a one")
            found += [one(each)[0] for each in things]
        return tuple({(part.kind, part.name): part for part in found}.values())

    return read


def _list_at(section: PartSection) -> Get:
    if not section.each:
        raise InvalidPage("a part of a kind says in `each` where the list of them is", ("each",))
    return pointer(section.each)


def _optional(where: Pointers) -> Get | None:
    return first(where) if where else None


def _currency(where: Pointers, words: str) -> Callable[[object], str | None]:
    currency_of = _optional(where)

    def read(thing: object) -> str | None:
        written = None if currency_of is None else currency_of(thing)
        if written is not None and not isinstance(written, str):
            raise Unreadable(f"the {words}'s currency is no text")
        return None if written is None else currency_code(written)

    return read


def _sums(totals: Mapping[str, Pointers], money: MoneySection) -> Callable[[object, str | None], Sums] | None:
    gets = [(f"{total}_minor", first(where)) for total, where in totals.items()]
    if unknown := {total for total, _ in gets} - {*SUM_NAMES}:
        raise InvalidPage(f"no total is called {min(unknown).removesuffix('_minor')}", ("totals",))
    minor = amounts(money)
    if not gets:
        return None

    def read(thing: object, unit: str | None) -> Sums:
        said = {total: minor(told, unit) for total, get in gets if (told := get(thing)) is not None}
        return Sums(**said) if said else UNSAID

    return read
