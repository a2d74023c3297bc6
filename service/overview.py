"""The overview: figures counted once for all readers, its tiles and accounts."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.accounts import ConfiguredAccount
from service.cached_counts import SliceCounter, TimeSlice, slices_between
from service.money import MoneyRow, Monies, money_rows, way_of
from statemachine.phases import Phase
from storage import counts, webhook_health
from storage import totals as storage_totals
from storage.counts import Bounded, Breaking, Overdue, SystemCounts, Waiting
from storage.database import Unit
from storage.rate_limits import MAX_DELAY
from storage.tables_support import PushQuality
from storage.totals import REJECTED, Deliveries, Sum, lag_quantile

#: Seconds within which what was counted is shown again.
CACHE_TTL_S: Final = 2.0

#: Seconds within which push is not read again: it is measured once a minute.
_PUSH_CACHE_TTL_S: Final = 30.0

#: Seconds that a look may take for what has passed. A new process needs more than one look at a large database.
_MONEY_BUDGET_S: Final = 0.06
_DELIVERIES_BUDGET_S: Final = 0.03

#: Days of push that the overview sums up, today included.
PUSH_DAYS: Final = 7

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_FIVE_MINUTES: Final = timedelta(minutes=5)
_MINUTE: Final = timedelta(minutes=1)

#: Seconds after which ages are shown anew, also where nothing else has changed.
_AGE_REFRESH_S: Final = 15


@dataclass(frozen=True, slots=True)
class Pushed:
    """Push of one account in the last days, of events that are pushed at all."""

    pushed: int = 0
    late: int = 0
    lost: int = 0

    @property
    def changes(self) -> int:
        """Count of changes that were judged."""
        return self.pushed + self.late + self.lost

    def share(self, name: str) -> float | None:
        """Return the share of `pushed`, `late` or `lost`; None of nothing."""
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
        """Add up the last hour's."""
        return sum(self.minutes.values(), Deliveries())


class OverviewCounter:
    """Counts the figures once for all readers within CACHE_TTL_S.

    Safe for several threads; one for the process.
    """

    def __init__(
        self,
        accounts: Mapping[str, ConfiguredAccount],
        clock: Callable[[], datetime],
        *,
        time_factor: float = 1.0,
    ) -> None:
        """Count for `time_factor` times as long as a page allows; math.inf: everything."""
        self._accounts = accounts
        self._clock = clock
        self._turn = threading.Lock()
        self._found: OverviewFigures | None = None
        self._looked_at = float("-inf")
        self._unit: Unit | None = None  #: while a count is under way
        self._money: SliceCounter[Monies] = SliceCounter(
            lambda since, until: storage_totals.money(self._now(), since, until), seconds=_MONEY_BUDGET_S * time_factor
        )
        self._deliveries: SliceCounter[Deliveries] = SliceCounter(
            lambda since, until: storage_totals.deliveries(self._now(), since, until),
            is_final=lambda found: found.is_final,
            seconds=_DELIVERIES_BUDGET_S * time_factor,
        )
        self._pushed: dict[str, Pushed] = {}
        self._pushed_at = float("-inf")

    def look(self, unit: Unit) -> OverviewFigures:
        """Return the figures, CACHE_TTL_S old, or as old as a count under way takes.

        Raises StorageUnavailable.
        """
        with self._turn:
            if self._found is None or not self._looked_at <= time.monotonic() < self._looked_at + CACHE_TTL_S:
                self._found = self._look(unit)
                self._looked_at = time.monotonic()
            return self._found

    def _now(self) -> Unit:
        if self._unit is None:
            raise LookupError("no count is under way")
        return self._unit

    def _look(self, unit: Unit) -> OverviewFigures:
        now, self._unit = self._clock().astimezone(UTC), unit
        try:
            watches = webhook_health.watches(unit)
            money, hours, is_money_whole = self._paid(now)
            minute = now.replace(second=0, microsecond=0)
            wanted = slices_between(minute - _HOUR + _MINUTE, minute + _MINUTE, _MINUTE)
            minutes = self._deliveries.of(wanted, now)
            found = OverviewFigures(
                at=now,
                standing=counts.system_counts(unit, list(self._accounts), now),
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
        recent = [
            *slices_between(hour, _five_minutes_of(now), _FIVE_MINUTES),
            TimeSlice(_five_minutes_of(now), _five_minutes_of(now) + _FIVE_MINUTES),
        ]
        before = [
            *slices_between(hour - _DAY, _five_minutes_of(now) - _DAY, _FIVE_MINUTES),
            TimeSlice(_five_minutes_of(now) - _DAY, now - _DAY),
        ]
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
            money_rows(today, yesterday, self._accounts),
            dict(sorted(hours.items())),
            len(found) == len(set(wanted)),
        )

    def _came_in(self, monies: Monies) -> Counter[str]:
        found: Counter[str] = Counter()
        for place, one in monies.items():
            if way_of(place, self._accounts) == "in":
                found[place.account] += one.payments
        return found

    def _worth(self, unit: Unit, now: datetime) -> dict[str, Pushed]:
        if not self._pushed_at <= time.monotonic() < self._pushed_at + _PUSH_CACHE_TTL_S:
            rows = webhook_health.between(unit, None, now.date() - timedelta(days=PUSH_DAYS - 1), now.date())
            self._pushed = worth(rows)
            self._pushed_at = time.monotonic()
        return self._pushed


def worth(rows: Sequence[PushQuality]) -> dict[str, Pushed]:
    """Add up push by account, of events that are pushed: of others nothing is lost."""
    found: dict[str, Pushed] = {}
    for account in dict.fromkeys(row.account for row in rows):
        of_account = [row for row in rows if row.account == account]
        pushed = webhook_health.pushed_events(of_account)
        judged = [row for row in of_account if (row.kind, row.event) in pushed]
        found[account] = Pushed(*(sum(getattr(row, name) for row in judged) for name in ("pushed", "late", "lost")))
    return found


def _five_minutes_of(now: datetime) -> datetime:
    return now.replace(minute=now.minute // 5 * 5, second=0, microsecond=0)


def _sum(found: Mapping[TimeSlice, Monies], slices: Sequence[TimeSlice]) -> Monies:
    added: Monies = {}
    for each in slices:
        for place, one in found.get(each, {}).items():
            added[place] = added.get(place, Sum()) + one
    return added


def _marked(found: OverviewFigures) -> OverviewFigures:
    """Mark the figures by all that is shown; of ages, as often as they change."""
    age = int(found.at.timestamp()) // _AGE_REFRESH_S
    shown = (age, found.standing, found.money, found.hours, found.minutes, found.pushed, found.alarms, found.is_whole)
    return replace(found, mark=hashlib.sha256(repr(_ordered(shown)).encode()).hexdigest()[:16])


def _ordered(value: Any) -> Any:
    """Order a value, so that the database's order of rows makes no difference."""
    if isinstance(value, Mapping):
        return sorted((repr(key), repr(_ordered(under))) for key, under in value.items())
    if isinstance(value, SystemCounts | Deliveries):
        return [_ordered(getattr(value, part.name)) for part in fields(value)]
    return [_ordered(under) for under in value] if isinstance(value, tuple) else value


#: Ages beyond which what waits is shown as late, and as bad.
_WARN_AGE: Final = timedelta(minutes=1)
_BAD_AGE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure: its label, value, note, and where its rows are."""

    label: str
    value: str
    table: str  #: of its rows, as the console names it
    filters: Mapping[str, str]  #: of its rows in that table
    note: str = ""
    since: datetime | None = None  #: shown after the note, as an age
    tone: str = "quiet"
    oldest_id: str | None = None  #: of a payment


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
    """List the alarms that stand, by account."""
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
    """List the tiles: what needs a person, then what waits, then the speed."""
    standing, now, hour = figures.standing, figures.at, figures.deliveries()
    reviews, dead, stuck = standing.reviews, standing.dead_effects, standing.dead_messages
    total = sum(hour.outcomes.values())
    return [
        Tile(
            "Needs review",
            count_text(reviews.count),
            "payments",
            {"review": "any"},
            "oldest" if reviews.since else "nobody has to decide anything",
            reviews.since,
            "warn" if reviews.count.number else "ok",
            reviews.oldest_id or None,
        ),
        _stuck("Dead effects", dead, "outbox", "every effect was delivered, or is tried again"),
        _stuck("Dead messages", stuck, "inbox", "every message could be processed"),
        Tile(
            "Parked messages",
            count_text(standing.parked_messages),
            "inbox",
            {"status": "parked"},
            "authentic, and not applicable now",
            tone="warn" if standing.parked_messages.number else "ok",
        ),
        *(
            Tile(
                f"Payments {phase.value}",
                count_text(standing.open[phase]),
                "payments",
                {"phase": phase.value},
                "the payer has not paid yet" if phase is Phase.OPEN else "paid by the payer, not confirmed yet",
            )
            for phase in standing.open
        ),
        _pending("Inbox waiting", standing.pending_messages, "inbox", now),
        _pending("Effects waiting", standing.pending_effects, "outbox", now),
        Tile(
            "Deliveries per minute",
            _rate(total / max(len(figures.minutes), 1)),
            "inbox",
            {"since": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M}"},
            f"{total:,} in the last hour",
        ),
        Tile(
            "Decided within",
            _seconds(lag_quantile(hour.lags, 0.95)) if hour.lags else "–",
            "inbox",
            {"status": "decided"},
            f"95 of 100; half within {_seconds(lag_quantile(hour.lags, 0.5))}"
            if hour.lags
            else "nothing to decide lately",
        ),
    ]


def _stuck(label: str, waiting: Waiting, table: str, calm: str) -> Tile:
    return Tile(
        label,
        count_text(waiting.count),
        table,
        {"status": "dead"},
        "oldest" if waiting.since else calm,
        waiting.since,
        "bad" if waiting.count.number else "ok",
    )


def _pending(label: str, waiting: Waiting, table: str, now: datetime) -> Tile:
    age = now - waiting.since if waiting.since is not None else timedelta(0)
    return Tile(
        label,
        count_text(waiting.count),
        table,
        {"status": "pending"},
        "oldest" if waiting.since else "nothing waits",
        waiting.since,
        "bad" if age > _BAD_AGE else "warn" if age > _WARN_AGE else "ok" if not waiting.count.number else "quiet",
    )


def lines_of(figures: OverviewFigures, accounts: Mapping[str, ConfiguredAccount]) -> list[AccountLine]:
    """List configured accounts, then those that only the rows still know."""
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
                paused_until=paused if paused is not None and figures.at < paused <= figures.at + MAX_DELAY else None,
                pushed=figures.pushed.get(name, Pushed()),
                alarms=sorted(figures.alarms.get(name, {})),
            )
        )
    return lines


def _heard(figures: OverviewFigures, account: str) -> datetime | None:
    """Return the last verified delivery, to the minute where push is not measured."""
    verified = [
        minute
        for minute, deliveries in figures.minutes.items()
        if any(name == account and outcome != REJECTED for name, outcome in deliveries.outcomes)
    ]
    return max((at for at in (figures.heard.get(account), *verified) if at is not None), default=None)


def count_text(count: Bounded) -> str:
    """Format a count; what was not counted to the end has a plus."""
    return f"{count.number:,}" + ("+" if count.is_more else "")


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _seconds(edge: float | None) -> str:
    if edge is None:
        return "over 5 min"
    return f"{edge * 1000:.0f} ms" if edge < 1 else f"{edge:g} s"
