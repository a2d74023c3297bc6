"""`receipted reconciliations list` and `show`: what reconciliations found, whoever wanted them."""

from typing import Annotated

import typer

from receipted.cli import drift_report, lists, output
from receipted.cli.context import ID_HELP, After, AsJson, Limit, known_account, opened, subcommands
from receipted.cli.drift_report import Format
from receipted.cli.exits import example
from receipted.cli.lookup import find_id
from receipted.cli.reconcile import AsFormat
from storage import reconciliations, sifting
from storage.tables_support import Reconciliation
from storage.types import ReconciliationStatus

app = subcommands("What reconciliations found, whoever wanted them.")

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
    """List reconciliations, the newest first. An ID in the table is the end of the whole one, and does for it."""
    with opened(context) as service:
        what = lists.wanted({"account": account, "status": status}, lists.moments(service, since, before))
        found = lists.find(
            service, Reconciliation, sifting.RECONCILIATIONS, what, after=after, limit=limit, is_newest=not oldest
        )
        if not found:
            known_account(service, account)
    if lists.told([drift_report.as_data(row, is_whole=False) for row in found], limit, as_json=json, as_csv=csv):
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
    output.more(found, limit)


@app.command(epilog=example("receipted reconciliations show 5b0c2f7e91aa --format csv"))
def show(
    context: typer.Context,
    reconciliation_id: Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)],
    form: AsFormat = Format.TEXT,
    json: AsJson = False,
) -> None:
    """Show the report of a reconciliation, or how far it is."""
    with opened(context) as service, service.database.read() as unit:
        row = reconciliations.get(unit, find_id(unit, Reconciliation, reconciliation_id))
    drift_report.tell(row, Format.JSON if json else form)
