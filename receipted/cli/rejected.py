"""`receipted rejected`: the quarantine of rejected deliveries, and redeeming them."""

from typing import Annotated, Any

import typer

from receipted.cli import lists, output
from receipted.cli.exits import example
from receipted.cli.lists import find_id
from receipted.cli.options import ID_HELP, AccountName, After, AsJson, Limit, open_service, require_account, subcommands
from receipted.wiring import Service
from storage import quarantine, search
from storage.errors import NotFound
from storage.tables import RejectedDelivery

app = subcommands("List, show and redeem rejected deliveries in quarantine.")


@app.command("list", epilog=example("receipted rejected list shop"))
def list_(
    context: typer.Context,
    account: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="Only this account's.", show_default=False)
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Only these, such as signature_wrong.")] = None,
    since: lists.Since = None,
    before: lists.Before = None,
    oldest: lists.Oldest = False,
    limit: Limit = 50,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """List rejected deliveries, the newest first, without their bodies."""
    with open_service(context) as service:
        require_account(service, account)
        what = lists.filters({"account": account, "reason": reason}, lists.time_range(service, since, before))
        found = lists.find_rows(
            service, RejectedDelivery, search.REJECTED, what, after=after, limit=limit, is_newest=not oldest
        )
    if lists.print_machine_form([_data(rejected) for rejected in found], limit, as_json=json, as_csv=csv):
        return
    output.table(
        ("ID", "Received", "Account", "Reason", "Client", "Kind", "Payment", "Bytes"),
        (
            (
                *(output.short(r.id), r.received_at, r.account, r.reason, r.client, r.kind),
                *(output.short(r.about), len(r.body)),
            )
            for r in found
        ),
    )
    output.print_more_hint(found, limit)


@app.command(epilog=example("receipted rejected show 77c1d2aa90fe --body"))
def show(
    context: typer.Context,
    rejected_id: Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)],
    body: Annotated[
        bool, typer.Option("--body", help="Also its headers and bytes: anybody may have sent them.")
    ] = False,
    target: lists.Target = None,
    json: AsJson = False,
) -> None:
    """Show a rejected delivery and the reason; with --body or --output also its bytes."""
    with open_service(context) as service, service.database.read() as unit:
        found = quarantine.get(unit, find_id(unit, RejectedDelivery, rejected_id))
    if target is not None:
        lists.write_body(target, found.body)
    if json:
        output.as_json(
            {**_data(found), **({"headers": found.headers, "body": lists.decode_body(found.body)} if body else {})}
        )
        return
    output.fields(_data(found))
    if body:
        output.note(f"what follows was not authentic: anybody may have sent it to account {found.account}")
        lists.print_headers(found.headers)
        output.say(output.shown(lists.decode_body(found.body), keep="\n\t"))


@app.command(epilog=example('receipted rejected redeem shop --by "Ada L." --reason "the webhook key was mended"'))
def redeem(
    context: typer.Context,
    account: AccountName,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who redeems; kept with each message.")] = "unnamed",
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with each message.")] = "the key was mended",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ID", help="This one, and not all; may be repeated.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Verify an account's rejected deliveries again after its key was mended.

    Each counts as of when it was received. What verifies now becomes an inbox message and leaves the quarantine; the
    rest stays.
    """
    with open_service(context) as service:
        require_account(service, account)
        chosen = _named(service, account, only) if only else None
        result = service.redeemer().redeem_all(account, by=by, reason=reason, only=chosen)
    if json:
        output.as_json({"redeemed": result.redeemed, "duplicates": result.duplicates, "rejected": result.rejected})
        return
    output.say(f"{len(result.redeemed)} redeemed, of which {result.duplicates} had come again meanwhile")
    for why, count in sorted(result.rejected.items()):
        output.say(f"{count} stay rejected: {why}")


def _named(service: Service, account: str, parts: list[str]) -> set[str]:
    """Return the whole ids. Raises NotFound if any is not the account's."""
    with service.database.read() as unit:
        found = [quarantine.get(unit, find_id(unit, RejectedDelivery, part)) for part in parts]
    for rejected in found:
        if rejected.account != account:
            raise NotFound(f"no rejected delivery {rejected.id} of {account}", param="only")
    return {rejected.id for rejected in found}


def _data(rejected: RejectedDelivery) -> dict[str, Any]:
    return {**output.columns_of(rejected, without=("body", "headers")), "size_bytes": len(rejected.body)}
