"""The overview's tiles and accounts, made of the figures: what the page and the command line tell alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from console import links
from console.figures import Figures, Pushed
from service.accounts import ConfiguredAccount
from statemachine.phases import Phase
from storage.counts import Bounded, Breaking, Overdue, Waiting
from storage.rate_limits import LONGEST
from storage.totals import REJECTED, lag_quantile

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


def tiles_of(figures: Figures) -> list[Tile]:
    """What needs a person first, then what waits, then how fast it goes."""
    standing, now, hour = figures.standing, figures.at, figures.deliveries()
    reviews, dead, stuck = standing.reviews, standing.dead_effects, standing.dead_messages
    total = sum(hour.outcomes.values())
    return [
        Tile(
            "Needs review",
            many(reviews.count),
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
            many(standing.parked_messages),
            links.table("inbox", status="parked"),
            "authentic, and not applicable now",
            tone="warn" if standing.parked_messages.number else "ok",
        ),
        *(
            Tile(
                f"Payments {phase.value}",
                many(standing.open[phase]),
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
        many(waiting.count),
        links.table(table, status="dead"),
        "oldest" if waiting.since else calm,
        waiting.since,
        "bad" if waiting.count.number else "ok",
    )


def _pending(label: str, waiting: Waiting, table: str, now: datetime) -> Tile:
    age = now - waiting.since if waiting.since is not None else timedelta(0)
    return Tile(
        label,
        many(waiting.count),
        links.table(table, status="pending"),
        "oldest" if waiting.since else "nothing waits",
        waiting.since,
        "bad" if age > _VERY_LATE else "warn" if age > _LATE else "ok" if not waiting.count.number else "quiet",
    )


def lines_of(figures: Figures, accounts: Mapping[str, ConfiguredAccount]) -> list[AccountLine]:
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


def _heard(figures: Figures, account: str) -> datetime | None:
    """The last verified delivery; to the minute where it is newer than the last look at what push delivers."""
    verified = [
        minute
        for minute, deliveries in figures.minutes.items()
        if any(name == account and outcome != REJECTED for name, outcome in deliveries.outcomes)
    ]
    return max((at for at in (figures.heard.get(account), *verified) if at is not None), default=None)


def many(count: Bounded) -> str:
    """The count in words; what was not counted to the end has a plus."""
    return f"{count.number:,}" + ("+" if count.is_more else "")


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _seconds(edge: float | None) -> str:
    if edge is None:
        return "over 5 min"
    return f"{edge * 1000:.0f} ms" if edge < 1 else f"{edge:g} s"
