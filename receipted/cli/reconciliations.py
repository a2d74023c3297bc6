"""`receipted reconcile` and `receipted reconciliations`: run, list and show them."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress, TaskID

from poller.errors import ReconciliationPaused
from poller.reconciler import StartedRun
from poller.reconciliation import LISTING
from providers.errors import UnsupportedByProvider
from receipted.cli import lists, output
from receipted.cli.exits import InvalidInput, example
from receipted.cli.lists import find_id
from receipted.cli.options import (
    ID_HELP,
    AccountName,
    After,
    AsJson,
    Limit,
    format_seconds,
    open_service,
    parse_instant,
    require_account,
    subcommands,
)
from receipted.cli.output import counting
from receipted.reconciler_wiring import reconciler
from receipted.wiring import Service
from service import csv_text
from storage import reconciliations, search
from storage.reconciliations import ReconciliationRequest
from storage.tables_support import Reconciliation
from storage.types import ReconciliationStatus


class Format(StrEnum):
    """Format of a printed report."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


#: The columns of CSV, in this order: the keys of an entry.
COLUMNS: Final = (
    *("payment", "kind", "provider_ref", "reference", "was", "is", "phase", "is_adopted", "since", "found_at"),
    *(
        "unknown_for_seconds",
        "at_most_seconds",
        "is_fresh",
        "is_alarming",
        "effects",
        "reviews",
        "found_by",
        "message",
        "reason",
    ),
)

_INTERNAL: Final = ("claim_token", "position")

_UNKNOWN: Final = "unknown here"


def print_report(row: Reconciliation, form: Format) -> None:
    """Print the report: text for people, all of it as JSON, or the drift as CSV."""
    if form is Format.JSON:
        output.as_json(as_data(row))
    elif form is Format.CSV:
        _as_csv(row)
    else:
        _as_text(row)


def as_data(row: Reconciliation, *, is_whole: bool = True) -> dict[str, Any]:
    """Return the row as JSON values; without drift details if one of many."""
    return output.columns_of(row, without=_INTERNAL if is_whole else (*_INTERNAL, "drift", "unasked"))


def progress_of(row: Reconciliation) -> str:
    """Describe the progress in words."""
    done = row.asked + row.failed
    return f"listed {row.listed} on {_plural(row.pages, 'page')}, asked about {done} of {max(row.to_ask, done)}"


def _as_csv(row: Reconciliation) -> None:
    entries = ([_csv_cell(entry.get(column)) for column in COLUMNS] for entry in row.drift)
    output.write_bytes(csv_text.encoded([COLUMNS, *entries]))


def _csv_cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value


def _as_text(row: Reconciliation) -> None:
    counts = row.counts
    took = (row.finished_at - row.began_at).total_seconds() if row.finished_at else None
    output.fields(
        {
            "reconciliation": row.id,
            "account": row.account,
            "range": f"{output.shown(row.since)} to {output.shown(row.until)}",
            "wanted by": row.asked_by,
            "status": row.status + (f", after {format_seconds(took)}" if took is not None else ""),
            "held by": f"{row.held_by}, since {output.shown(row.held_at)}" if row.finished_at is None else None,
            "heard": progress_of(row),
            "not listed": "; ".join(f"{e['reason']} ({e['code']})" for e in row.unasked if e["payment"] is None),
            "unchanged": counts.get("unchanged"),
            "parked": counts.get("unknown_here"),
            "not applied": counts.get("unapplied", 0) + counts.get("dead", 0) or None,
            "error": row.last_error,
        }
    )
    if row.drift:
        output.say("")
        output.say(f"Drift: {_drift_summary(counts)}")
        output.table(
            ("Payment", "Reference or id", "Was", "Is", "Since", "Unknown for", "Changed", "Found by"),
            (_drift_row(entry) for entry in row.drift),
        )
    elif row.status == ReconciliationStatus.DONE:
        output.say("no drift: the provider agrees with what was known")
    missing = [entry for entry in row.unasked if entry["payment"] is not None]
    if missing:
        output.say("")
        listed = f", of which {len(missing)} are" if row.failed > len(missing) else ""
        output.say(f"Not asked or not answered: {max(row.failed, len(missing))}{listed}")
        output.table(("Payment", "Kind", "Provider's id", "Why"), (_unasked_row(entry) for entry in missing))


def _drift_summary(counts: Mapping[str, int]) -> str:
    parts = {
        "drift": _plural(counts["drift"], "payment"),
        "adopted": f"{counts['adopted']} not known before",
        "fresh": f"{counts['fresh']} so young that a webhook may have been on its way",
        "effects": f"{_plural(counts['effects'], 'effect')} owed",
        "reviews": f"{_plural(counts['reviews'], 'review')} opened",
    }
    return ", ".join(words for name, words in parts.items() if counts[name])


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _drift_row(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    since = datetime.fromisoformat(entry["since"]) if entry["since"] else "unknown"
    at_most = format_seconds(entry["at_most_seconds"])
    return (
        output.short(entry["payment"]),
        entry["reference"] or entry["provider_ref"],
        _UNKNOWN if entry["is_adopted"] else entry["was"] or "no state",
        entry["is"] or "no state",
        since,
        format_seconds(entry["unknown_for_seconds"]) or (f"at most {at_most}" if at_most else "unknown"),
        ", ".join([*entry["effects"], *(f"review {review}" for review in entry["reviews"])]),
        entry["found_by"],
    )


def _unasked_row(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        output.short(entry["payment"]),
        entry["kind"],
        entry["provider_ref"],
        f"{entry['reason']} ({entry['code']})",
    )


AsFormat = Annotated[Format, typer.Option("--format", help="How the report is printed; --json is --format json.")]


def reconcile(
    context: typer.Context,
    account: AccountName,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="WHEN", help="From when: 2026-11-01, 2026-11-01T12:00Z, or 2d for so long ago."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Until when; else now.", show_default=False)
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Begin another one, and leave an unfinished one for good.")
    ] = False,
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Who wants it; kept with the report.")
    ] = "an operator",
    form: AsFormat = Format.TEXT,
    json: AsJson = False,
) -> None:
    """Compare a provider's payments with what is known here, and report the drift.

    Reads the provider's list where it has one, adopts payments unknown here, and asks about the rest, within the
    account's budget. Ctrl-C leaves it as it is; the same command resumes it.
    """
    with open_service(context) as service:
        require_account(service, account)
        if not service.accounts[account].can_reconcile:
            raise UnsupportedByProvider("the provider can neither be asked nor lists anything to compare with")
        wanted = _wanted(service, account, since, until, by)
        try:
            row = asyncio.run(_run(service, wanted, anew=new, is_range_given=since is not None or until is not None))
        except (KeyboardInterrupt, ReconciliationPaused):
            output.note(f"what was found is kept; resume with: receipted reconcile {account}")
            raise
    print_report(row, Format.JSON if json else form)


def _wanted(service: Service, account: str, since: str | None, until: str | None, by: str) -> ReconciliationRequest:
    now = service.clock()
    end = min(parse_instant(until, now, option="until") if until else now, now)
    back = timedelta(seconds=service.settings.reconciliation.look_back_seconds)
    start = parse_instant(since, now, option="since") if since else _before(end, back)
    if start >= end:
        raise InvalidInput("--since must lie before --until, and both before now", param="since")
    return ReconciliationRequest(account, start, end, by.strip()[:128] or "an operator")


def _before(end: datetime, back: timedelta) -> datetime:
    try:
        return end - back
    except OverflowError:
        raise InvalidInput("--until lies too far back", param="until") from None


async def _run(service: Service, wanted: ReconciliationRequest, *, anew: bool, is_range_given: bool) -> Reconciliation:
    async with service.clients() as clients:
        runner = reconciler(service, clients)
        started = await asyncio.to_thread(runner.start, wanted, anew=anew)
        if started.is_resumed:
            _print_resumed(started, is_range_given=is_range_given)
        with counting() as bar:
            return await runner.run(started.row, _progress_callback(bar))


def _print_resumed(started: StartedRun, *, is_range_given: bool) -> None:
    row = started.row
    output.note(
        f"resuming what {row.asked_by} began at {output.shown(row.began_at)}, over {output.shown(row.since)} to "
        f"{output.shown(row.until)}: {progress_of(row)}"
    )
    if is_range_given:
        output.note("the range that you gave comes after that: run this again, or begin anew with --new")


def _progress_callback(bar: Progress) -> Callable[[Reconciliation], None]:
    """Return a callback that shows progress: one task for each stage.

    A resumed stage begins where it was.
    """
    tasks: dict[str, TaskID] = {}

    def put(stage: str, words: str, total: int | None, done: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(words, total=total, completed=done)
        bar.update(tasks[stage], description=words, total=total, completed=done)

    def show(row: Reconciliation) -> None:
        if row.stage == LISTING:
            put(LISTING, f"listing, page {row.pages}", None, row.listed)
            return
        if LISTING in tasks:
            put(LISTING, "listed", row.listed, row.listed)
        put(row.stage, "asking", row.to_ask or None, row.asked + row.failed)

    return show


app = subcommands("List and show reconciliations.")

_COLUMNS = ("ID", "Account", "Wanted by", "Began", "Since", "Status", "Listed", "Asked", "Failed", "Drift", "Fresh")


@app.command("list", epilog=example("receipted reconciliations list --account shop"))
def list_(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's.")] = None,
    status: Annotated[ReconciliationStatus | None, typer.Option("--status", help="Only in this status.")] = None,
    since: lists.Since = None,
    before: lists.Before = None,
    oldest: lists.Oldest = False,
    limit: Limit = 20,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """List reconciliations, the newest first."""
    with open_service(context) as service:
        what = lists.filters({"account": account, "status": status}, lists.time_range(service, since, before))
        found = lists.find_rows(
            service, Reconciliation, search.RECONCILIATIONS, what, after=after, limit=limit, is_newest=not oldest
        )
        if not found:
            require_account(service, account)
    if lists.print_machine_form([as_data(row, is_whole=False) for row in found], limit, as_json=json, as_csv=csv):
        return
    output.table(
        _COLUMNS,
        (
            (
                *(output.short(row.id), row.account, row.asked_by, row.began_at, row.since, row.status),
                *(row.listed, row.asked, row.failed, row.counts.get("drift"), row.counts.get("fresh")),
            )
            for row in found
        ),
    )
    output.print_more_hint(found, limit)


@app.command(epilog=example("receipted reconciliations show 5b0c2f7e91aa --format csv"))
def show(
    context: typer.Context,
    reconciliation_id: Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)],
    form: AsFormat = Format.TEXT,
    json: AsJson = False,
) -> None:
    """Show the report of a reconciliation, or its progress."""
    with open_service(context) as service, service.database.read() as unit:
        row = reconciliations.get(unit, find_id(unit, Reconciliation, reconciliation_id))
    print_report(row, Format.JSON if json else form)
