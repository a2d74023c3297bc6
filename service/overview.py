"""The overview: figures counted once for all who look and kept for a moment, and its tiles and account lines."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from console import links
from service.accounts import ConfiguredAccount
from service.slice_counts import SliceCounter, TimeSlice, slices_between
from statemachine.phases import Phase
from storage import counts, webhook_health
from storage import totals as storage_totals
from storage.counts import Bounded, Breaking, Overdue, SystemCounts, Waiting
from storage.database import Unit
from storage.rate_limits import LONGEST
from storage.tables_support import PushQuality
from storage.totals import REJECTED, Deliveries, Money, Sum, lag_quantile

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
class OverviewFigures:
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


class OverviewCounter:
    """Counts the figures, once for all who look within KEPT seconds; for several threads. One for the process."""

    def __init__(self, parts: Standpoint, *, patience: float = 1.0) -> None:
        """A look takes `patience` times as long as pages allow it; with math.inf the first one counts everything."""
        self._parts = parts
        self._turn = threading.Lock()
        self._found: OverviewFigures | None = None
        self._looked_at = float("-inf")
        self._unit: Unit | None = None  #: while somebody looks
        self._money: SliceCounter[Monies] = SliceCounter(
            lambda since, until: storage_totals.money(self._now(), since, until), seconds=_FOR_MONEY * patience
        )
        self._deliveries: SliceCounter[Deliveries] = SliceCounter(
            lambda since, until: storage_totals.deliveries(self._now(), since, until),
            is_final=lambda found: found.is_final,
            seconds=_FOR_DELIVERIES * patience,
        )
        self._pushed: dict[str, Pushed] = {}
        self._pushed_at = float("-inf")

    def look(self, unit: Unit) -> OverviewFigures:
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

    def _look(self, unit: Unit) -> OverviewFigures:
        now, self._unit = self._parts.clock().astimezone(UTC), unit
        try:
            watches = webhook_health.watches(unit)
            money, hours, is_money_whole = self._paid(now)
            minute = now.replace(second=0, microsecond=0)
            wanted = slices_between(minute - _HOUR + _MINUTE, minute + _MINUTE, _MINUTE)
            minutes = self._deliveries.of(wanted, now)
            found = OverviewFigures(
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
        recent = [*slices_between(hour, _few(now), _FEW_MINUTES), TimeSlice(_few(now), _few(now) + _FEW_MINUTES)]
        before = [*slices_between(hour - _DAY, _few(now) - _DAY, _FEW_MINUTES), TimeSlice(_few(now) - _DAY, now - _DAY)]
        whole = slices_between(midnight - _DAY, hour, _HOUR)
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


def _sum(found: Mapping[TimeSlice, Monies], pieces: Sequence[TimeSlice]) -> Monies:
    added: Monies = {}
    for piece in pieces:
        for place, one in found.get(piece, {}).items():
            added[place] = added.get(place, Sum()) + one
    return added


def _marked(found: OverviewFigures) -> OverviewFigures:
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


#: Ages beyond which what waits is shown as late, and as bad.
_LATE: Final = timedelta(minutes=1)
_VERY_LATE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure: what it is, how much, what is to be known of it, and where its rows are."""

    label: str
    value: str
    url: str
    note: str = ""
    since: datetime | None = None  #: told after the note, as an age
    tone: str = "quiet"
    first: str | None = None  #: where the oldest is


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One account as the overview shows it."""

    name: str
    account: ConfiguredAccount | None  #: None where the settings do not have it any more
    deliveries: int
    rejected: int
    heard_at: datetime | None
    overdue: Overdue | None
    asked: int
    broken: Breaking | None  #: while the breaker is open
    paused_until: datetime | None
    pushed: Pushed
    alarms: Sequence[str]


def alarms_of(standing: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The alarms that stand, by account, as the template shows them."""
    return [
        {
            "account": account,
            "name": name,
            "since_at": datetime.fromisoformat(told["since"]).astimezone(UTC),
            "reason": told["reason"],
        }
        for account, alarms in sorted(standing.items())
        for name, told in sorted(alarms.items())
    ]


def tiles_of(figures: OverviewFigures) -> list[Tile]:
    """What needs a person first, then what waits, then how fast it goes."""
    standing, now, hour = figures.standing, figures.at, figures.deliveries()
    reviews, dead, stuck = standing.reviews, standing.dead_effects, standing.dead_messages
    total = sum(hour.outcomes.values())
    return [
        Tile(
            "Needs review",
            count_text(reviews.count),
            links.table("payments", review="any"),
            "oldest" if reviews.since else "nobody has to decide anything",
            reviews.since,
            "warn" if reviews.count.number else "ok",
            links.payment(reviews.oldest_id) if reviews.oldest_id else None,
        ),
        _stuck("Dead effects", dead, "outbox", "every effect was delivered, or is tried again"),
        _stuck("Dead messages", stuck, "inbox", "every message could be processed"),
        Tile(
            "Parked messages",
            count_text(standing.parked_messages),
            links.table("inbox", status="parked"),
            "authentic, and not applicable now",
            tone="warn" if standing.parked_messages.number else "ok",
        ),
        *(
            Tile(
                f"Payments {phase.value}",
                count_text(standing.open[phase]),
                links.table("payments", phase=phase.value),
                "the payer has not paid yet" if phase is Phase.OPEN else "paid by the payer, not confirmed yet",
            )
            for phase in standing.open
        ),
        _pending("Inbox waiting", standing.pending_messages, "inbox", now),
        _pending("Effects waiting", standing.pending_effects, "outbox", now),
        Tile(
            "Deliveries per minute",
            _rate(total / max(len(figures.minutes), 1)),
            links.table("inbox", since=f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M}"),
            f"{total:,} in the last hour",
        ),
        Tile(
            "Decided within",
            _seconds(lag_quantile(hour.lags, 0.95)) if hour.lags else "–",
            links.table("inbox", status="decided"),
            f"95 of 100; half within {_seconds(lag_quantile(hour.lags, 0.5))}"
            if hour.lags
            else "nothing to decide lately",
        ),
    ]


def _stuck(label: str, waiting: Waiting, table: str, calm: str) -> Tile:
    return Tile(
        label,
        count_text(waiting.count),
        links.table(table, status="dead"),
        "oldest" if waiting.since else calm,
        waiting.since,
        "bad" if waiting.count.number else "ok",
    )


def _pending(label: str, waiting: Waiting, table: str, now: datetime) -> Tile:
    age = now - waiting.since if waiting.since is not None else timedelta(0)
    return Tile(
        label,
        count_text(waiting.count),
        links.table(table, status="pending"),
        "oldest" if waiting.since else "nothing waits",
        waiting.since,
        "bad" if age > _VERY_LATE else "warn" if age > _LATE else "ok" if not waiting.count.number else "quiet",
    )


def lines_of(figures: OverviewFigures, accounts: Mapping[str, ConfiguredAccount]) -> list[AccountLine]:
    """Configured accounts, then those that only the rows still know."""
    standing, hour = figures.standing, figures.deliveries()
    seen = {name for name, _ in hour.outcomes} | set(figures.alarms)
    lines = []
    for name in [*accounts, *sorted(seen - set(accounts))]:
        counts = {outcome: count for (account, outcome), count in hour.outcomes.items() if account == name}
        budget = standing.budgets.get(name)
        paused = budget.paused_until if budget is not None else None
        lines.append(
            AccountLine(
                name=name,
                account=accounts.get(name),
                deliveries=sum(count for outcome, count in counts.items() if outcome != REJECTED),
                rejected=counts.get(REJECTED, 0),
                heard_at=_heard(figures, name),
                overdue=standing.overdue.get(name),
                asked=standing.asked.get(name, 0),
                broken=budget if budget is not None and budget.broken_at is not None else None,
                paused_until=paused if paused is not None and figures.at < paused <= figures.at + LONGEST else None,
                pushed=figures.pushed.get(name, Pushed()),
                alarms=sorted(figures.alarms.get(name, {})),
            )
        )
    return lines


def _heard(figures: OverviewFigures, account: str) -> datetime | None:
    """The last verified delivery; to the minute where it is newer than the last look at what push delivers."""
    verified = [
        minute
        for minute, deliveries in figures.minutes.items()
        if any(name == account and outcome != REJECTED for name, outcome in deliveries.outcomes)
    ]
    return max((at for at in (figures.heard.get(account), *verified) if at is not None), default=None)


def count_text(count: Bounded) -> str:
    """The count in words; what was not counted to the end has a plus."""
    return f"{count.number:,}" + ("+" if count.is_more else "")


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _seconds(edge: float | None) -> str:
    if edge is None:
        return "over 5 min"
    return f"{edge * 1000:.0f} ms" if edge < 1 else f"{edge:g} s"
