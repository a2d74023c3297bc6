"""Money by day: what each account took in, paid out or gave back, by currency."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.accounts import ConfiguredAccount
from statemachine.phases import Phase
from storage.totals import Money, Sum

Monies = dict[Money, Sum]

#: Label of each way of money, in the order in which it is shown.
WAYS: Final = {"in": "paid", "back": "refunded", "out": "paid out", "returned": "payouts returned"}


@dataclass(frozen=True, slots=True)
class MoneyRow:
    """Money of one account, way and currency, today and by this time yesterday.

    `way` is in, out, back (to payers), or returned (of what was paid out); `kinds` are those that it is made of.
    """

    account: str
    currency: str | None
    way: str
    kinds: tuple[str, ...]
    today: Sum
    yesterday: Sum


def money_rows(today: Monies, yesterday: Monies, accounts: Mapping[str, ConfiguredAccount]) -> list[MoneyRow]:
    """Make one row for each way, account and currency, in the order of WAYS."""
    kept: dict[tuple[str, str, str | None], list[Sum]] = {}
    kinds: dict[tuple[str, str, str | None], set[str]] = {}
    for at, monies in enumerate((today, yesterday)):
        for place, one in monies.items():
            key = (way_of(place, accounts), place.account, place.currency)
            kept.setdefault(key, [Sum(), Sum()])[at] += one
            kinds.setdefault(key, set()).add(place.kind)
    order = list(WAYS)
    return [
        MoneyRow(account, currency, way, tuple(sorted(kinds[way, account, currency])), *kept[way, account, currency])
        for way, account, currency in sorted(kept, key=lambda key: (order.index(key[0]), key[1], key[2] or "~"))
    ]


def totals(rows: Sequence[MoneyRow]) -> list[MoneyRow]:
    """Add up what came in by currency, where several accounts took it; no account."""
    found: dict[str | None, list[MoneyRow]] = {}
    for row in rows:
        if row.way == "in":
            found.setdefault(row.currency, []).append(row)
    return [
        MoneyRow("", currency, "in", (), _added(row.today for row in same), _added(row.yesterday for row in same))
        for currency, same in sorted(found.items(), key=lambda item: item[0] or "~")
        if len(same) > 1
    ]


def way_of(place: Money, accounts: Mapping[str, ConfiguredAccount]) -> str:
    """Return the way of a sum (ADR 0014); one of an unknown lifecycle came in."""
    account = accounts.get(place.account)
    lifecycle = account.lifecycles.get(place.kind) if account is not None else None
    subject = lifecycle.subject if lifecycle is not None else "payment"
    if place.phase is Phase.REFUNDED:
        return "returned" if subject == "payout" else "back"
    return "in" if subject == "payment" else "out"


def _added(sums: Iterable[Sum]) -> Sum:
    return sum(sums, Sum())
