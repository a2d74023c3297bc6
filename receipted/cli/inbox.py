"""`receipted inbox`: authentic statements, verbatim, and their decisions."""

from typing import Annotated

import typer

from receipted.cli import lists, output, payments
from receipted.cli.exits import example
from receipted.cli.lists import find_id
from receipted.cli.options import (
    ID_HELP,
    After,
    AsJson,
    By,
    Limit,
    Reason,
    open_service,
    require_account,
    run_command,
    subcommands,
)
from receipted.cli.output import with_progress
from service.commands import Commands
from service.timeline import body_size
from statemachine.phases import Outcome, Source
from storage import inbox
from storage import search as storage_search
from storage.tables import InboxMessage
from storage.types import InboxStatus

app = subcommands("List, show and replay inbox messages.")

_COLUMNS = ("ID", "Received", "Account", "Source", "Bytes", "Status", "Decision", "Payment", "Reason")


@app.command("list", epilog=example("receipted inbox list --status parked --account shop"))
def list_(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's.")] = None,
    status: Annotated[InboxStatus | None, typer.Option("--status", help="Only in this status.")] = None,
    source: Annotated[Source | None, typer.Option("--source", help="Only from this source.")] = None,
    decision: Annotated[Outcome | None, typer.Option("--decision", help="Only with this decision.")] = None,
    payment: lists.OfPayment = None,
    search: lists.Search = None,
    since: lists.Since = None,
    before: lists.Before = None,
    oldest: lists.Oldest = False,
    limit: Limit = 50,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """List inbox messages, the newest first, without their bodies."""
    with open_service(context) as service:
        given = {"account": account, "status": status, "source": source, "decision": decision}
        about = lists.find_payment_id(service, payment)
        ids = lists.search_ids(service, storage_search.message_ids, search)
        what = lists.filters({**given, "payment_id": about}, lists.time_range(service, since, before), ids=ids)
        found = lists.find_rows(
            service, InboxMessage, storage_search.MESSAGES, what, after=after, limit=limit, is_newest=not oldest
        )
        if not found:
            require_account(service, account)
    if lists.print_machine_form([payments.message_data(message) for message in found], limit, as_json=json, as_csv=csv):
        return
    output.table(
        _COLUMNS,
        (
            (
                output.short(message.id),
                message.received_at,
                message.account,
                message.source,
                len(message.body) if message.scrubbed_at is None else "scrubbed",
                message.status,
                message.decision,
                output.short(message.payment_id),
                message.reason or message.last_error,
            )
            for message in found
        ),
    )
    output.print_more_hint(found, limit)


@app.command(epilog=example("receipted inbox show 77c1d2aa90fe --body"))
def show(
    context: typer.Context,
    message_id: Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)],
    body: Annotated[bool, typer.Option("--body", help="Also its headers and bytes: personal data.")] = False,
    target: lists.Target = None,
    json: AsJson = False,
) -> None:
    """Show a message and its decision; with --body or --output also its bytes."""
    with open_service(context) as service, service.database.read() as unit:
        message = inbox.get(unit, find_id(unit, InboxMessage, message_id))
    if target is not None:
        lists.write_body(target, message.body)
    if json:
        private = {"headers": message.headers, "body": lists.decode_body(message.body)} if body else {}
        output.as_json({**payments.message_data(message), **private})
        return
    data = payments.message_data(message)
    outcomes = data.pop("outcomes")
    output.fields(data)
    for entry in outcomes:
        output.say(f"decided: {output.shown(entry.get('outcome'))}: {output.shown(entry.get('reason'))}")
    if body:
        output.note(f"what follows came by {message.source} for account {message.account}; it may be personal data")
        lists.print_headers(message.headers)
        if message.scrubbed_at is not None:
            output.say(f"{body_size(message)}; their digest is kept: sha256 {message.digest}")
        else:
            output.say(output.shown(lists.decode_body(message.body), keep="\n\t"))


@app.command(epilog=example('receipted inbox replay 77c1d2aa90fe --reason "parser mended in 0.2" --by "Ada L."'))
def replay(
    context: typer.Context,
    message_ids: Annotated[list[str], typer.Argument(metavar="ID...", help=ID_HELP, show_default=False)],
    reason: Reason,
    by: By,
    json: AsJson = False,
) -> None:
    """Apply messages once more with the current program; only adds to the history."""
    with open_service(context) as service:
        with service.database.read() as unit:
            found = [find_id(unit, InboxMessage, text) for text in message_ids]

        async def work(commands: Commands) -> list[InboxMessage]:
            return [
                await commands.replay(message_id, reason=reason, by=by)
                for message_id in with_progress(found, "Replaying")
            ]

        replayed = run_command(service, work)
    if json:
        output.as_json([payments.message_data(message) for message in replayed])
        return
    for message in replayed:
        output.say(f"{message.id}  {message.status}, {message.decision}: {output.shown(message.reason)}")
