"""`receipted overview` and `receipted money`: current totals, and one day's money."""

import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from receipted.cli import lists, output
from receipted.cli.exits import InvalidInput
from receipted.cli.options import After, AsJson, Limit, format_seconds, open_service, require_account
from receipted.cli.output import bar
from receipted.wiring import Service
from service.accounts import ConfiguredAccount
from service.money import WAYS, MoneyRow, money_rows, totals, way_of
from service.overview import (
    PUSH_DAYS,
    AccountLine,
    OverviewCounter,
    OverviewFigures,
    Pushed,
    Tile,
    alarms_of,
    count_text,
    lines_of,
    tiles_of,
)
from statemachine.money import currency_code
from storage import totals as storage_totals
from storage.counts import Bounded, Overdue, Waiting
from storage.ids import is_id
from storage.totals import Entry, Money, Sum, lag_quantile

_SUMS: Final = ("Account", "Way", "Amount", "Payments", "Note")
_ENTRIES: Final = ("Payment", "Recorded", "Amount", "Reference", "Kind", "State", "Review")
Sums = dict[Money, Sum]
_MONEY: Final = ("Account", "Way", "Today", "Payments", "Yesterday", "Payments then", "Note")
_TILES: Final = ("What", "How many", "Since", "Note")
_ACCOUNTS: Final = (
    *("Account", "Deliveries", "Rejected", "Last delivery", "Asked", "Questions late", "Lost", "Late", "In the way"),
)


def money(
    context: typer.Context,
    day: Annotated[
        str | None, typer.Argument(metavar="DAY", help="Such as 2026-11-21, UTC; else today.", show_default=False)
    ] = None,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's.")] = None,
    currency: Annotated[str | None, typer.Option("--currency", help="Only in this currency.")] = None,
    way: Annotated[str | None, typer.Option("--way", help=f"Only this: {', '.join(WAYS)}.")] = None,
    payments: Annotated[bool, typer.Option("--payments", help="The payments, and not what they come to.")] = False,
    limit: Limit = 50,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """Show one day's money by account and currency, or with --payments each payment.

    A payment counts when it was first recorded here as paid, or as settled without that, with what was captured or else
    asked for. The ways are in (paid), back (refunded), out (paid out) and returned (of what was paid out).
    """
    if way is not None and way not in WAYS:
        raise InvalidInput(f"--way is one of: {', '.join(WAYS)}", param="way")
    if after is not None and not is_id(after):
        raise InvalidInput("--after takes the id that the list before ended with", param="after")
    code = None if currency is None else currency_code(currency)
    with open_service(context) as service:
        require_account(service, account)
        since, until = _range(service, day)
        sums = _sums(service, since, until, account, code, way)
        if payments:
            with service.database.read() as unit:
                entries = storage_totals.entries(unit, since, until, list(sums), after=after, limit=limit)
            _print_entries(entries, limit, as_json=json, as_csv=csv)
            return
        rows = money_rows(sums, {}, service.configured_accounts())
    if lists.print_machine_form([_row_data(row) for row in rows], len(rows) + 1, as_json=json, as_csv=csv):
        return
    if rows:
        output.table(_SUMS, (_row(row) for row in [*rows, *totals(rows)]))
    else:
        output.say(f"no money on {since:%Y-%m-%d}")


def _range(service: Service, day: str | None) -> tuple[datetime, datetime]:
    try:
        today = f"{service.clock().astimezone(UTC):%Y-%m-%d}"
        since = datetime.strptime(today if day is None else day, "%Y-%m-%d").replace(tzinfo=UTC)
        until = since + timedelta(days=1)
    except (ValueError, OverflowError):
        raise InvalidInput(f"a day is given as 2026-11-21, not {day!r}", param="day") from None
    if since.year < datetime.fromtimestamp(0, UTC).year:
        raise InvalidInput("there are no days before 1970 here", param="day")
    return since, until


def _sums(
    service: Service, since: datetime, until: datetime, account: str | None, currency: str | None, way: str | None
) -> Sums:
    """Sum the day hour by hour, so that no statement takes long."""
    accounts, found, hour = service.configured_accounts(), Sums(), timedelta(hours=1)
    hours = [since + at * hour for at in range((until - since) // hour)]
    with bar() as progress:
        for start in progress.track(hours, description="Counting"):
            with service.database.read() as unit:
                for place, one in storage_totals.money(unit, start, start + hour).items():
                    found[place] = found.get(place, Sum()) + one
    return {
        place: one
        for place, one in found.items()
        if account in (None, place.account)
        and currency in (None, place.currency)
        and way in (None, way_of(place, accounts))
    }


def _row(row: MoneyRow) -> tuple[Any, ...]:
    return (
        *(row.account or "all", WAYS[row.way], output.amount(row.today.amount_minor, row.currency)),
        *(row.today.payments, caveats(row.today)),
    )


def _row_data(row: MoneyRow) -> dict[str, Any]:
    return {
        "account": row.account,
        "way": row.way,
        "kinds": row.kinds,
        "amount": _major(row.today.amount_minor, row.currency),
        "currency": row.currency,
        **sum_data(row.today),
    }


def _major(minor: int | None, currency: str | None) -> str | None:
    """Return the amount without its currency; None if its decimal places are unknown."""
    text = output.amount(minor, currency) or ""
    return text.partition(" ")[0] if currency is not None and text.count(" ") == 1 else None


def _print_entries(entries: list[Entry], limit: int, *, as_json: bool, as_csv: bool) -> None:
    names = ("id", "recorded_at", "payment_id", "kind", "reference", "amount_minor", "currency", "state", "review")
    data = [
        {name: getattr(entry, name) for name in names} | {"amount": _major(entry.amount_minor, entry.currency)}
        for entry in entries
    ]
    if lists.print_machine_form(data, limit, as_json=as_json, as_csv=as_csv):
        return
    output.table(
        _ENTRIES,
        (
            (
                *(output.short(entry.payment_id), entry.recorded_at, output.amount(entry.amount_minor, entry.currency)),
                *(entry.reference, entry.kind, entry.state, entry.review),
            )
            for entry in entries
        ),
    )
    output.print_more_hint(entries, limit)


def overview(context: typer.Context, json: AsJson = False) -> None:
    """Show today's money, what needs a person, what waits, and each account's state.

    Yesterday is up to the same time; days are of UTC. Deliveries and rejections are those of the last hour, answers to
    our questions those of the last minute; lost and late is what push was worth in the last 7 days.
    """
    with open_service(context) as service:
        accounts = service.configured_accounts()
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


def _figures(service: Service, accounts: Mapping[str, ConfiguredAccount]) -> OverviewFigures:
    """Count everything to the end: this process has no earlier counts."""
    with bar() as progress, service.database.read() as unit:
        progress.add_task("Counting", total=None)
        return OverviewCounter(accounts, service.clock, time_factor=math.inf).look(unit)


def _money_row(row: MoneyRow) -> tuple[Any, ...]:
    return (
        row.account or "all",
        WAYS[row.way],
        output.amount(row.today.amount_minor, row.currency),
        row.today.payments,
        output.amount(row.yesterday.amount_minor, row.currency),
        row.yesterday.payments,
        caveats(row.today),
    )


def caveats(one: Sum) -> str | None:
    """Return the caveats of a sum, such as payments in doubt; None without any."""
    text = []
    if one.doubtful:
        text.append(f"{one.doubtful:,} in doubt")
    if one.unpriced:
        text.append(f"{one.unpriced:,} without a known amount")
    return ", ".join(text) or None


def _tile_row(tile: Tile, now: datetime) -> tuple[Any, ...]:
    since = None if tile.since is None else format_seconds(max((now - tile.since).total_seconds(), 0.0))
    oldest = output.short(tile.oldest_id)
    return (tile.label, tile.value, since, f"oldest: {oldest}" if oldest else tile.note if since is None else None)


def _account_row(line: AccountLine, now: datetime) -> tuple[Any, ...]:
    late = None
    if line.overdue is not None and line.overdue.since is not None:
        wait = format_seconds(max((now - line.overdue.since).total_seconds(), 0.0))
        late = f"{count_text(line.overdue.count)}, by {wait}"
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


def _as_data(figures: OverviewFigures, lines: list[AccountLine]) -> dict[str, Any]:
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
    """Sum the counts by outcome over all accounts."""
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
    """Return the sum as JSON values."""
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
