"""`receipted rejected`: the quarantine of deliveries that were not authentic, and redeeming them."""

from typing import Annotated

import typer

from receipted.cli import output
from receipted.cli.context import AccountName, After, AsJson, Limit, example, known_account, opened, subcommands
from receipted.cli.lookup import find_id
from receipted.redeeming import redeem_all
from storage import quarantine
from storage.tables import RejectedDelivery

app = subcommands("The quarantine: deliveries that were not authentic, kept for a while.")


@app.command("list", epilog=example("receipted rejected list shop"))
def list_(
    context: typer.Context, account: AccountName, limit: Limit = 50, after: After = None, json: AsJson = False
) -> None:
    """List an account's rejected deliveries, oldest first, without their bodies."""
    with opened(context) as service:
        known_account(service, account)
        with service.database.read() as unit:
            start = find_id(unit, RejectedDelivery, after) if after else ""
            found = quarantine.find(unit, account, after=start, limit=limit)
    if json:
        output.as_json([{**output.row_of(r, without=("body", "headers")), "size_bytes": len(r.body)} for r in found])
        return
    output.table(
        ("ID", "Received", "Reason", "Client", "Kind", "Bytes"),
        ((output.short(r.id), r.received_at, r.reason, r.client, r.kind, len(r.body)) for r in found),
    )
    output.more(found, limit, f"receipted rejected list {account}")


@app.command(epilog=example('receipted rejected redeem shop --by "Ada L." --reason "the webhook key was mended"'))
def redeem(
    context: typer.Context,
    account: AccountName,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who redeems; kept with each message.")] = "unnamed",
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with each message.")] = "the key was mended",
    json: AsJson = False,
) -> None:
    """Verify an account's rejected deliveries again, after its key was mended, as of when they were received.

    What verifies now becomes an inbox message and leaves the quarantine; the rest stays.
    """
    with opened(context) as service:
        known_account(service, account)
        result = redeem_all(service, account, by=by, reason=reason)
    if json:
        output.as_json({"redeemed": result.redeemed, "duplicates": result.duplicates, "rejected": result.rejected})
        return
    output.say(f"{len(result.redeemed)} redeemed, of which {result.duplicates} had come again meanwhile")
    for why, count in sorted(result.rejected.items()):
        output.say(f"{count} stay rejected: {why}")
