"""`receipted outbox`: effects owed to sinks, and their deliveries."""

import sys
from typing import Annotated

import typer

from receipted.cli import lists, output
from receipted.cli.exits import InvalidInput, example
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
from receipted.wiring import Service
from service.commands import Commands
from storage import outbox
from storage import search as storage_search
from storage.errors import EffectOvertaken, NotFound
from storage.ids import WEBHOOK_PREFIX
from storage.tables import OutboxMessage
from storage.types import OutboxStatus

app = subcommands("List, show and redrive effects owed to sinks.")

_COLUMNS = ("ID", "Created", "Effect", "Sink", "Account", "Payment", "Status", "Attempts", "Next attempt", "Last error")
_ATTEMPTS = ("Attempt", "Started", "Outcome", "Answered", "Took", "Error")


@app.command("list", epilog=example("receipted outbox list --status dead --sink shop"))
def list_(
    context: typer.Context,
    status: Annotated[OutboxStatus | None, typer.Option("--status", help="Only in this status.")] = None,
    sink: Annotated[str | None, typer.Option("--sink", help="Only those owed to this sink.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="Only of this account.")] = None,
    effect: Annotated[str | None, typer.Option("--effect", help="Only this, such as payment.paid.")] = None,
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
    """List effects owed to sinks, the newest first, without the payloads."""
    with open_service(context) as service:
        given = {"status": status, "sink": sink, "account": account, "effect": effect}
        about = lists.find_payment_id(service, payment)
        ids = lists.search_ids(service, storage_search.outbox_message_ids, search)
        what = lists.filters({**given, "payment_id": about}, lists.time_range(service, since, before), ids=ids)
        found = lists.find_rows(
            service, OutboxMessage, storage_search.OWED, what, after=after, limit=limit, is_newest=not oldest
        )
        if not found:
            _known_sink(service, sink)
            require_account(service, account)
    if lists.print_machine_form([_data(message) for message in found], limit, as_json=json, as_csv=csv):
        return
    output.table(
        _COLUMNS,
        (
            (
                output.short(message.id),
                message.created_at,
                message.effect,
                message.sink,
                message.account,
                output.short(message.payment_id),
                message.status,
                message.attempts,
                message.next_attempt_at if message.status == OutboxStatus.PENDING else None,
                message.last_error,
            )
            for message in found
        ),
    )
    output.print_more_hint(found, limit)


@app.command(epilog=example("receipted outbox show 90ab12cd34ef --payload"))
def show(
    context: typer.Context,
    message_id: Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)],
    payload: Annotated[bool, typer.Option("--payload", help="Also what is sent.")] = False,
    json: AsJson = False,
) -> None:
    """Show an effect owed to a sink, with every delivery attempt."""
    with open_service(context) as service, service.database.read() as unit:
        message = outbox.get(unit, find_id(unit, OutboxMessage, message_id))
        tries = outbox.attempts_of(unit, [message.id])
    sent = {"payload": message.payload} if payload else {}
    if json:
        output.as_json(
            {**_data(message), **sent, "delivery_attempts": [output.columns_of(attempt) for attempt in tries]}
        )
        return
    output.fields({**_data(message), **sent})
    if tries:
        output.say("")
        output.table(
            _ATTEMPTS,
            ((t.number, t.started_at, t.outcome, t.http_status, f"{t.duration_ms} ms", t.error) for t in tries),
        )
    for each in tries:
        if each.answer:
            output.say(f"\nattempt {each.number} was answered:")
            output.say(output.shown(each.answer, keep="\n\t"))


@app.command(
    epilog=example(
        'receipted outbox redrive 90ab12cd34ef --reason "the shop is back" --by "Ada L."',
        'receipted outbox redrive --sink shop --all-dead --reason "the shop is back" --by "Ada L."',
    )
)
def redrive(
    context: typer.Context,
    reason: Reason,
    by: By,
    message_ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help=ID_HELP, show_default=False)] = None,
    sink: Annotated[str | None, typer.Option("--sink", help="Of this sink; with --all-dead.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="Of this account; with --all-dead.")] = None,
    effect: Annotated[str | None, typer.Option("--effect", help="This effect; with --all-dead.")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Everything of these that is dead.")] = False,
    overtaken: Annotated[
        bool,
        typer.Option(
            "--overtaken",
            help="Also where the sink has had a later effect of the payment: only if it goes by data.version.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Make dead effects due again; `serve` or `worker` delivers them.

    One that its sink would get after a later effect of the same payment stays dead, unless --overtaken is given.
    """
    narrowed = {"sink": sink, "account": account, "effect": effect}
    is_narrowed = any(value is not None for value in narrowed.values())
    if bool(message_ids) == all_dead or all_dead != is_narrowed:
        raise InvalidInput(
            "give either IDs, or --all-dead together with --sink NAME, --account NAME or --effect NAME", param="id"
        )
    with open_service(context) as service:
        found = _dead(service, narrowed) if all_dead else _named(service, message_ids or [])

        async def work(commands: Commands) -> list[OutboxMessage]:
            done = []
            for message_id in with_progress(found, "Redriving"):
                try:
                    done.append(await commands.redrive(message_id, reason=reason, by=by, overtaken=overtaken))
                except EffectOvertaken as refused:
                    if not all_dead:
                        raise
                    output.note(f"{message_id} stays dead: {refused.message}")
                except NotFound:
                    if not all_dead:
                        raise
                    output.note(f"{message_id} is not dead any more")
            return done

        redriven = run_command(service, work)
    if json:
        output.as_json([_data(message) for message in redriven])
        return
    for message in redriven:
        output.say(f"{message.id}  {message.effect} to {message.sink} is due again")
    output.note(f"{len(redriven)} redriven")


def _named(service: Service, texts: list[str]) -> list[str]:
    with service.database.read() as unit:
        return [find_id(unit, OutboxMessage, text) for text in texts]


def _dead(service: Service, narrowed: dict[str, str | None]) -> list[str]:
    _known_sink(service, narrowed["sink"])
    require_account(service, narrowed["account"])
    what = lists.filters({**narrowed, "status": OutboxStatus.DEAD})
    dead = lists.find_rows(
        service, OutboxMessage, storage_search.OWED, what, after=None, limit=sys.maxsize, is_newest=False
    )
    return [message.id for message in dead]


def _known_sink(service: Service, name: str | None) -> None:
    sinks = [sink.name for sink in service.settings.sinks]
    if name is not None and name not in sinks:
        raise NotFound(f"no sink {name!r}; there are: {', '.join(sinks)}", param="sink")


def _data(message: OutboxMessage) -> dict[str, object]:
    return {**output.columns_of(message, without=("payload",)), "webhook_id": f"{WEBHOOK_PREFIX}{message.travels_as}"}
