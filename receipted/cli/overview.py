"""`receipted overview`: how everything stands, as the first page of the console tells it."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import typer

from console.figures import PUSH_DAYS, WAYS, Figures, Figuring, MoneyRow, Pushed, totals
from console.overview_rows import AccountLine, Tile, alarms_of, lines_of, many, tiles_of
from console.parts import Account
from receipted.cli import output
from receipted.cli.context import AsJson, opened
from receipted.cli.moments import lasting
from receipted.cli.progress import bar
from receipted.console_accounts import accounts_of
from receipted.wiring import Service
from storage.counts import Bounded, Overdue, Waiting
from storage.totals import Sum, lag_quantile

_MONEY: Final = ("Account", "Way", "Today", "Payments", "Yesterday", "Payments then", "Note")
_TILES: Final = ("What", "How many", "Since", "Note")
_ACCOUNTS: Final = (
    *("Account", "Deliveries", "Rejected", "Last delivery", "Asked", "Questions late", "Lost", "Late", "In the way"),
)


def overview(context: typer.Context, json: AsJson = False) -> None:
    """Show how everything stands: money today, what needs a person, what waits, and how each account does.

    Yesterday is up to the same time; days are of UTC. Deliveries and rejections are those of the last hour, answers to
    our questions those of the last minute; lost and late is what push was worth in the last 7 days.
    """
    with opened(context) as service:
        accounts = accounts_of(service)
        figures = _figures(service, accounts)
    lines = lines_of(figures, accounts)
    if json:
        output.as_json(_as_data(figures, lines))
        return
    output.say(f"at {output.shown(figures.at)}")
    for alarm in alarms_of(figures.alarms):
        output.say(output.shown(f"ALARM {alarm['account']}: {alarm['name']}: {alarm['reason']}"))
    output.say("")
    if figures.money:
        output.table(_MONEY, map(_money_row, [*figures.money, *totals(figures.money)]))
    else:
        output.say("no money today or yesterday")
    output.say("")
    output.table(_TILES, (_tile_row(tile, figures.at) for tile in tiles_of(figures)))
    output.say("")
    output.table(_ACCOUNTS, (_account_row(line, figures.at) for line in lines))


@dataclass(frozen=True, slots=True)
class _Standpoint:
    accounts: Mapping[str, Account]
    clock: Callable[[], datetime]


def _figures(service: Service, accounts: Mapping[str, Account]) -> Figures:
    """Counted to the end: nobody has counted anything for this process before."""
    with bar() as progress, service.database.read() as unit:
        progress.add_task("Counting", total=None)
        return Figuring(_Standpoint(accounts, service.clock), patience=math.inf).look(unit)


def _money_row(row: MoneyRow) -> tuple[Any, ...]:
    return (
        row.account or "all",
        WAYS[row.way],
        output.amount(row.today.amount_minor, row.currency),
        row.today.payments,
        output.amount(row.yesterday.amount_minor, row.currency),
        row.yesterday.payments,
        doubts(row.today),
    )


def doubts(one: Sum) -> str | None:
    """What is to be known of a sum before anybody relies on it; None where there is nothing."""
    told = []
    if one.doubtful:
        told.append(f"{one.doubtful:,} in doubt")
    if one.unpriced:
        told.append(f"{one.unpriced:,} without a known amount")
    return ", ".join(told) or None


def _tile_row(tile: Tile, now: datetime) -> tuple[Any, ...]:
    since = None if tile.since is None else lasting(max((now - tile.since).total_seconds(), 0.0))
    oldest = output.short(tile.first.rpartition("/")[2]) if tile.first else None
    return (tile.label, tile.value, since, f"oldest: {oldest}" if oldest else tile.note if since is None else None)


def _account_row(line: AccountLine, now: datetime) -> tuple[Any, ...]:
    late = None
    if line.overdue is not None and line.overdue.since is not None:
        late = f"{many(line.overdue.count)}, by {lasting(max((now - line.overdue.since).total_seconds(), 0.0))}"
    in_the_way = [*line.alarms]
    if line.broken is not None:
        in_the_way.append("the breaker is open")
    if line.paused_until is not None:
        in_the_way.append(f"paused until {output.shown(line.paused_until)}")
    return (
        line.name if line.account is not None else f"{line.name} (not in the settings)",
        *(line.deliveries, line.rejected, line.heard_at or "never", line.asked, late or "none"),
        *(_percent(line.pushed, "lost"), _percent(line.pushed, "late"), ", ".join(in_the_way) or None),
    )


def _percent(pushed: Pushed, name: str) -> str:
    share = pushed.share(name)
    return "-" if share is None else f"{share:.1%}"


def _as_data(figures: Figures, lines: list[AccountLine]) -> dict[str, Any]:
    standing, hour = figures.standing, figures.deliveries()
    count = sum(hour.outcomes.values())
    return {
        "at": figures.at,
        "money": [_money_data(row) for row in figures.money],
        "totals": [_money_data(row) for row in totals(figures.money)],
        "payments": {phase.value: _bounded(found) for phase, found in standing.open.items()},
        "needs_review": _waiting(standing.reviews),
        "dead_effects": _waiting(standing.dead_effects),
        "dead_messages": _waiting(standing.dead_messages),
        "parked_messages": _bounded(standing.parked_messages),
        "pending_messages": _waiting(standing.pending_messages),
        "pending_effects": _waiting(standing.pending_effects),
        "deliveries": {"last_hour": count, "per_minute": round(count / max(len(figures.minutes), 1), 3)},
        "decided_within_seconds": {f"p{share}": lag_quantile(hour.lags, share / 100) for share in (50, 95)},
        "paid_per_hour": [{"hour": hour, "payments": counts} for hour, counts in figures.hours.items()],
        "deliveries_per_minute": [
            {"minute": minute, **_outcomes(found.outcomes)} for minute, found in figures.minutes.items()
        ],
        "accounts": [_account_data(line) for line in lines],
        "alarms": alarms_of(figures.alarms),
    }


def _outcomes(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """By what became of them, whatever the account."""
    found = Counter[str]()
    for (_account, outcome), count in counts.items():
        found[outcome or "decided"] += count
    return dict(found)


def _money_data(row: MoneyRow) -> dict[str, Any]:
    return {
        "account": row.account or None,
        "currency": row.currency,
        "way": row.way,
        "kinds": row.kinds,
        "today": sum_data(row.today),
        "yesterday_by_now": sum_data(row.yesterday),
    }


def sum_data(one: Sum) -> dict[str, int]:
    """The sum as JSON values."""
    return {name: getattr(one, name) for name in ("payments", "amount_minor", "unpriced", "doubtful")}


def _account_data(line: AccountLine) -> dict[str, Any]:
    pushed = {name: getattr(line.pushed, name) for name in ("pushed", "late", "lost")}
    return {
        "account": line.name,
        "is_configured": line.account is not None,
        "deliveries_last_hour": line.deliveries,
        "rejected_last_hour": line.rejected,
        "heard_at": line.heard_at,
        "answers_last_minute": line.asked,
        "questions_late": None if line.overdue is None else _overdue(line.overdue),
        "breaker": "closed" if line.broken is None else "open",
        "paused_until": line.paused_until,
        "push": {"days": PUSH_DAYS, **pushed},
        "alarms": line.alarms,
    }


def _bounded(count: Bounded) -> dict[str, Any]:
    return {"count": count.number, "is_more": count.is_more}


def _waiting(waiting: Waiting) -> dict[str, Any]:
    return {**_bounded(waiting.count), "oldest": waiting.oldest_id, "since": waiting.since}


def _overdue(overdue: Overdue) -> dict[str, Any]:
    return {**_bounded(overdue.count), "since": overdue.since}
