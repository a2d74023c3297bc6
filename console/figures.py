"""The figures of the overview: counted once for everybody who looks, and kept for a moment."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from console.pieces import Piece, Pieces, each
from service.accounts import ConfiguredAccount
from statemachine.phases import Phase
from storage import counts, webhook_health
from storage import totals as storage_totals
from storage.counts import SystemCounts
from storage.database import Unit
from storage.tables_support import PushQuality
from storage.totals import Deliveries, Money, Sum

#: Seconds within which what was counted is shown again.
KEPT: Final = 2.0

#: Seconds within which push is not looked at again: it is measured once a minute.
_PUSH_KEPT: Final = 30.0

#: Seconds that a look may take for what has passed. A new process needs more than one look at a large database.
_FOR_MONEY: Final = 0.06
_FOR_DELIVERIES: Final = 0.03

#: Days of push that the overview sums up, today included.
PUSH_DAYS: Final = 7

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_FEW_MINUTES: Final = timedelta(minutes=5)
_MINUTE: Final = timedelta(minutes=1)

#: Ages are told anew after so many seconds, also where nothing else has changed.
_AGES_AFTER: Final = 15

Monies = dict[Money, Sum]

#: How each way of money is told, in the order in which it is shown.
WAYS: Final = {"in": "paid", "back": "refunded", "out": "paid out", "returned": "payouts returned"}


class Standpoint(Protocol):
    """Of which accounts the figures are, and as of when."""

    @property
    def accounts(self) -> Mapping[str, ConfiguredAccount]:
        """The configured accounts, by name."""
        ...

    @property
    def clock(self) -> Callable[[], datetime]:
        """What time it is."""
        ...


@dataclass(frozen=True, slots=True)
class MoneyRow:
    """What one account took in, paid out or gave back in one currency, today and by this time yesterday.

    `way` is in, out, back (to payers), or returned (of what was paid out); `kinds` are those that it is made of.
    """

    account: str
    currency: str | None
    way: str
    kinds: tuple[str, ...]
    today: Sum
    yesterday: Sum


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the last days' push of one account was worth, of the events that are pushed at all."""

    pushed: int = 0
    late: int = 0
    lost: int = 0

    @property
    def changes(self) -> int:
        """How many changes were judged."""
        return self.pushed + self.late + self.lost

    def share(self, name: str) -> float | None:
        """The share of `pushed`, `late` or `lost`; None of nothing."""
        return getattr(self, name) / self.changes if self.changes else None


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the overview shows."""

    at: datetime
    standing: SystemCounts
    money: Sequence[MoneyRow]
    hours: Mapping[datetime, Mapping[str, int]]  #: payments paid, by account, of the last 24 hours
    minutes: Mapping[datetime, Deliveries]  #: of the last hour
    pushed: Mapping[str, Pushed]
    alarms: Mapping[str, Mapping[str, Any]]
    heard: Mapping[str, datetime | None]  #: the last verified delivery, by account
    is_whole: bool  #: whether nothing was left uncounted for want of time
    mark: str = field(default="", compare=False)  #: another where anything else is to be shown

    def deliveries(self) -> Deliveries:
        """The last hour's together."""
        return sum(self.minutes.values(), Deliveries())


class Figuring:
    """Counts the figures, once for all who look within KEPT seconds; for several threads. One for the process."""

    def __init__(self, parts: Standpoint, *, patience: float = 1.0) -> None:
        """A look takes `patience` times as long as pages allow it; with math.inf the first one counts everything."""
        self._parts = parts
        self._turn = threading.Lock()
        self._found: Figures | None = None
        self._looked_at = float("-inf")
        self._unit: Unit | None = None  #: while somebody looks
        self._money: Pieces[Monies] = Pieces(
            lambda since, until: storage_totals.money(self._now(), since, until), seconds=_FOR_MONEY * patience
        )
        self._deliveries: Pieces[Deliveries] = Pieces(
            lambda since, until: storage_totals.deliveries(self._now(), since, until),
            is_final=lambda found: found.is_final,
            seconds=_FOR_DELIVERIES * patience,
        )
        self._pushed: dict[str, Pushed] = {}
        self._pushed_at = float("-inf")

    def look(self, unit: Unit) -> Figures:
        """The figures, KEPT seconds old at most, or as old as somebody else's look takes that is under way.

        Raises StorageUnavailable.
        """
        with self._turn:
            if self._found is None or not self._looked_at <= time.monotonic() < self._looked_at + KEPT:
                self._found = self._look(unit)
                self._looked_at = time.monotonic()
            return self._found

    def _now(self) -> Unit:
        if self._unit is None:
            raise LookupError("nobody looks")
        return self._unit

    def _look(self, unit: Unit) -> Figures:
        now, self._unit = self._parts.clock().astimezone(UTC), unit
        try:
            watches = webhook_health.watches(unit)
            money, hours, is_money_whole = self._paid(now)
            minute = now.replace(second=0, microsecond=0)
            wanted = each(minute - _HOUR + _MINUTE, minute + _MINUTE, _MINUTE)
            minutes = self._deliveries.of(wanted, now)
            found = Figures(
                at=now,
                standing=counts.system_counts(unit, list(self._parts.accounts), now),
                money=money,
                hours=hours,
                minutes={piece.since: minutes[piece] for piece in sorted(minutes)},
                pushed=self._worth(unit, now),
                alarms={name: watch.alarms for name, watch in watches.items() if watch.alarms},
                heard={name: watch.heard_at for name, watch in watches.items()},
                is_whole=is_money_whole and len(minutes) == len(wanted),
            )
        finally:
            self._unit = None
        return _marked(found)

    def _paid(self, now: datetime) -> tuple[list[MoneyRow], dict[datetime, Counter[str]], bool]:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        hour = now.replace(minute=0, second=0, microsecond=0)
        recent = [*each(hour, _few(now), _FEW_MINUTES), Piece(_few(now), _few(now) + _FEW_MINUTES)]
        before = [*each(hour - _DAY, _few(now) - _DAY, _FEW_MINUTES), Piece(_few(now) - _DAY, now - _DAY)]
        whole = each(midnight - _DAY, hour, _HOUR)
        wanted = [*whole, *recent, *before]
        found = self._money.of(wanted, now)
        today = _sum(found, [piece for piece in whole if piece.since >= midnight] + recent)
        yesterday = _sum(found, [piece for piece in whole if piece.since < hour - _DAY] + before)
        hours: dict[datetime, Counter[str]] = {}
        for piece in [*whole, *recent]:
            start = min(piece.since.replace(minute=0), hour)
            if start > hour - _DAY:
                hours.setdefault(start, Counter()).update(self._came_in(found.get(piece, {})))
        return (
            money_rows(today, yesterday, self._parts.accounts),
            dict(sorted(hours.items())),
            len(found) == len(set(wanted)),
        )

    def _came_in(self, monies: Monies) -> Counter[str]:
        found: Counter[str] = Counter()
        for place, one in monies.items():
            if way_of(place, self._parts.accounts) == "in":
                found[place.account] += one.payments
        return found

    def _worth(self, unit: Unit, now: datetime) -> dict[str, Pushed]:
        if not self._pushed_at <= time.monotonic() < self._pushed_at + _PUSH_KEPT:
            rows = webhook_health.between(unit, None, now.date() - timedelta(days=PUSH_DAYS - 1), now.date())
            self._pushed = worth(rows)
            self._pushed_at = time.monotonic()
        return self._pushed


def money_rows(today: Monies, yesterday: Monies, accounts: Mapping[str, ConfiguredAccount]) -> list[MoneyRow]:
    """One row for each way, account and currency of which there is any, in the order of WAYS."""
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
    """What came in by currency, where more than one account took it; these rows have no account."""
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
    """In only where the lifecycle's subject is a payment (ADR 0014), or where nobody knows it any more."""
    account = accounts.get(place.account)
    lifecycle = account.lifecycles.get(place.kind) if account is not None else None
    subject = lifecycle.subject if lifecycle is not None else "payment"
    if place.phase is Phase.REFUNDED:
        return "returned" if subject == "payout" else "back"
    return "in" if subject == "payment" else "out"


def worth(rows: Sequence[PushQuality]) -> dict[str, Pushed]:
    """What push was worth, by account; events that were never pushed do not count, since of them nothing is lost."""
    found: dict[str, Pushed] = {}
    for account in dict.fromkeys(row.account for row in rows):
        of_account = [row for row in rows if row.account == account]
        pushed = webhook_health.pushed_events(of_account)
        judged = [row for row in of_account if (row.kind, row.event) in pushed]
        found[account] = Pushed(*(sum(getattr(row, name) for row in judged) for name in ("pushed", "late", "lost")))
    return found


def _added(sums: Iterable[Sum]) -> Sum:
    return sum(sums, Sum())


def _few(now: datetime) -> datetime:
    return now.replace(minute=now.minute // 5 * 5, second=0, microsecond=0)


def _sum(found: Mapping[Piece, Monies], pieces: Sequence[Piece]) -> Monies:
    added: Monies = {}
    for piece in pieces:
        for place, one in found.get(piece, {}).items():
            added[place] = added.get(place, Sum()) + one
    return added


def _marked(found: Figures) -> Figures:
    """With a mark of everything that is shown; of ages, as often as they are told anew."""
    age = int(found.at.timestamp()) // _AGES_AFTER
    shown = (age, found.standing, found.money, found.hours, found.minutes, found.pushed, found.alarms, found.is_whole)
    return replace(found, mark=hashlib.sha256(repr(_ordered(shown)).encode()).hexdigest()[:16])


def _ordered(value: Any) -> Any:
    """The same for what is the same, in whatever order the database told it."""
    if isinstance(value, Mapping):
        return sorted((repr(key), repr(_ordered(under))) for key, under in value.items())
    if isinstance(value, SystemCounts | Deliveries):
        return [_ordered(getattr(value, part.name)) for part in fields(value)]
    return [_ordered(under) for under in value] if isinstance(value, tuple) else value
