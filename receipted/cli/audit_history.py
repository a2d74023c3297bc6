"""`receipted audit heads` and `audit runs`: what an auditor writes down, and when the history was last proved."""

from typing import Annotated

import typer

from receipted.cli import lists, output
from receipted.cli.context import After, AsJson, Limit, known_account, opened, subcommands
from receipted.cli.exits import example
from receipted.cli.lookup import find_id
from receipted.cli.moments import lasting
from storage import audits, sifting
from storage import search as storage_search
from storage.tables import Payment
from storage.tables_support import AuditRun

app = subcommands("What an auditor writes down, and when the history was last proved.")

_HEADS = ("ID", "Account", "State", "Transitions", "Last", "Hash")
_RUNS = ("ID", "Began", "Ended", "Took", "Messages", "Payments", "Wrong rows")

#: Of a payment, what its head is.
_OF_HEAD = ("id", "account", "state", "version", "changed_at", "head_hash")


@app.command(epilog=example("receipted audit heads --limit 5", "receipted audit heads --since 1d --json"))
def heads(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's payments.")] = None,
    search: lists.Search = None,
    since: lists.Since = None,
    before: lists.Before = None,
    oldest: lists.Oldest = False,
    limit: Limit = 50,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """List the hash of each payment's last transition, which covers its whole history; the newest payment first.

    Kept elsewhere, it proves later that nothing before it was changed.
    """
    with opened(context) as service:
        ids = lists.named(service, storage_search.payment_ids, search)
        what = lists.wanted({"account": account}, lists.moments(service, since, before), ids=ids)
        found = lists.find(service, Payment, sifting.HEADS, what, after=after, limit=limit, is_newest=not oldest)
        if not found:
            known_account(service, account)
    data = [{name: getattr(payment, name) for name in _OF_HEAD} for payment in found]
    if lists.told(data, limit, as_json=json, as_csv=csv):
        return
    output.table(
        _HEADS,
        ((output.short(payment.id), *(getattr(payment, name) for name in _OF_HEAD[1:])) for payment in found),
    )
    output.more(found, limit)


@app.command(epilog=example("receipted audit runs"))
def runs(context: typer.Context, limit: Limit = 20, after: After = None, json: AsJson = False) -> None:
    """List when everything was proved to the end, the newest first; what was wrong was told to whoever ran it."""
    with opened(context) as service, service.database.read() as unit:
        found = audits.find(unit, after=find_id(unit, AuditRun, after) if after else None, limit=limit)
    if json:
        output.as_json([output.row_of(run) for run in found])
        return
    if not found and after is None:
        output.say("nothing was proved yet: receipted audit verify does it")
        return
    output.table(
        _RUNS,
        (
            (
                *(output.short(run.id), run.began_at, run.ended_at),
                lasting((run.ended_at - run.began_at).total_seconds()),
                *(run.messages, run.payments, run.faults),
            )
            for run in found
        ),
    )
    output.more(found, limit)
