"""`receipted money`: what one day brought, by account and currency, and the payments behind each sum."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from console.figures import WAYS, MoneyRow, money_rows, totals, way_of
from receipted.cli import lists, output
from receipted.cli.context import After, AsJson, Limit, known_account, opened
from receipted.cli.exits import InvalidInput
from receipted.cli.overview import doubts, sum_data
from receipted.cli.progress import bar
from receipted.console_accounts import accounts_of
from receipted.wiring import Service
from statemachine.money import currency_code
from storage import totals as storage_totals
from storage.ids import is_id
from storage.totals import Entry, Money, Sum

_SUMS: Final = ("Account", "Way", "Amount", "Payments", "Note")
_ENTRIES: Final = ("Payment", "Recorded", "Amount", "Reference", "Kind", "State", "Review")

Sums = dict[Money, Sum]


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
    """Show what a day brought by account and currency, or with --payments each payment that is counted.

    A payment counts when it was first recorded here as paid, or as settled without that, with what was captured or else
    asked for. The ways are in (paid), back (refunded), out (paid out) and returned (of what was paid out).
    """
    if way is not None and way not in WAYS:
        raise InvalidInput(f"--way is one of: {', '.join(WAYS)}", param="way")
    if after is not None and not is_id(after):
        raise InvalidInput("--after takes the id that the list before ended with", param="after")
    code = None if currency is None else currency_code(currency)
    with opened(context) as service:
        known_account(service, account)
        since, until = _range(service, day)
        sums = _sums(service, since, until, account, code, way)
        if payments:
            with service.database.read() as unit:
                entries = storage_totals.entries(unit, since, until, list(sums), after=after, limit=limit)
            _tell_entries(entries, limit, as_json=json, as_csv=csv)
            return
        rows = money_rows(sums, {}, accounts_of(service))
    if lists.told([_row_data(row) for row in rows], len(rows) + 1, as_json=json, as_csv=csv):
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
    """The day hour by hour, so that no statement takes long."""
    accounts, found, hour = accounts_of(service), Sums(), timedelta(hours=1)
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
        *(row.today.payments, doubts(row.today)),
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
    """The amount without its currency; None where no known currency tells the places."""
    told = output.amount(minor, currency) or ""
    return told.partition(" ")[0] if currency is not None and told.count(" ") == 1 else None


def _tell_entries(entries: list[Entry], limit: int, *, as_json: bool, as_csv: bool) -> None:
    names = ("id", "recorded_at", "payment_id", "kind", "reference", "amount_minor", "currency", "state", "review")
    data = [
        {name: getattr(entry, name) for name in names} | {"amount": _major(entry.amount_minor, entry.currency)}
        for entry in entries
    ]
    if lists.told(data, limit, as_json=as_json, as_csv=as_csv):
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
    output.more(entries, limit)
