"""`receipted reconcile`: catching up with a provider, with a bar, a report, and a way to go on."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from poller.errors import ReconciliationPaused
from poller.reconciler import Started
from poller.reconciliation import LISTING
from receipted.cli import drift_report, output
from receipted.cli.context import AccountName, AsJson, known_account, opened
from receipted.cli.drift_report import Format
from receipted.cli.exits import InvalidInput
from receipted.cli.moments import moment_of
from receipted.cli.progress import counting
from receipted.reconciling import reconciler
from receipted.wiring import Service
from storage.reconciliations import Wanted
from storage.tables_support import Reconciliation

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
    """Compare what a provider has with what is known here, and report what differed.

    Walks through the provider's list where it has one, adopts what was never heard of, and asks about the rest, within
    the account's budget. Ctrl-C leaves it as it is; the same command goes on with it.
    """
    with opened(context) as service:
        known_account(service, account)
        wanted = _wanted(service, account, since, until, by)
        try:
            row = asyncio.run(_walk(service, wanted, anew=new, is_range_given=since is not None or until is not None))
        except (KeyboardInterrupt, ReconciliationPaused):
            output.note(f"what was found is kept; go on with: receipted reconcile {account}")
            raise
    drift_report.tell(row, Format.JSON if json else form)


def _wanted(service: Service, account: str, since: str | None, until: str | None, by: str) -> Wanted:
    now = service.clock()
    end = min(moment_of(until, now, option="until") if until else now, now)
    back = timedelta(seconds=service.settings.reconciliation.look_back_seconds)
    start = moment_of(since, now, option="since") if since else _before(end, back)
    if start >= end:
        raise InvalidInput("--since must lie before --until, and both before now", param="since")
    return Wanted(account, start, end, by.strip()[:128] or "an operator")


def _before(end: datetime, back: timedelta) -> datetime:
    try:
        return end - back
    except OverflowError:
        raise InvalidInput("--until lies too far back", param="until") from None


async def _walk(service: Service, wanted: Wanted, *, anew: bool, is_range_given: bool) -> Reconciliation:
    async with service.clients() as clients:
        walker = reconciler(service, clients)
        started = await asyncio.to_thread(walker.start, wanted, anew=anew)
        if started.is_resumed:
            _say_resumed(started, is_range_given=is_range_given)
        with counting() as bar:
            return await walker.walk(started.row, _shown_on(bar))


def _say_resumed(started: Started, *, is_range_given: bool) -> None:
    row = started.row
    output.note(
        f"going on with what {row.asked_by} began at {output.shown(row.began_at)}, over {output.shown(row.since)} to "
        f"{output.shown(row.until)}: {drift_report.progress_of(row)}"
    )
    if is_range_given:
        output.note("the range that you gave comes after that: run this again, or begin anew with --new")


def _shown_on(bar: Progress) -> Callable[[Reconciliation], None]:
    """What shows the row's progress: one task for each stage, from where it was when this run came to it."""
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
