"""`receipted outbox`: effects that are owed to sinks, and how their deliveries went."""

from typing import Annotated, Final

import typer

from receipted.cli import output
from receipted.cli.context import (
    ID_HELP,
    After,
    AsJson,
    By,
    Limit,
    Reason,
    command,
    example,
    opened,
    subcommands,
)
from receipted.cli.exits import InvalidInput
from receipted.cli.lookup import find_id
from receipted.cli.progress import tracked
from receipted.commands import Commands
from receipted.wiring import Service
from storage import outbox
from storage.errors import NotFound
from storage.tables import OutboxMessage
from storage.types import OutboxStatus

app = subcommands("Effects that are owed to sinks, and how their deliveries went.")

_COLUMNS = ("ID", "Created", "Effect", "Sink", "Account", "Payment", "Status", "Attempts", "Next attempt", "Last error")
_PAGE: Final = 500


@app.command("list", epilog=example("receipted outbox list --status dead --sink shop"))
def list_(
    context: typer.Context,
    status: Annotated[OutboxStatus | None, typer.Option("--status", help="Only in this status.")] = None,
    sink: Annotated[str | None, typer.Option("--sink", help="Only those owed to this sink.")] = None,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """List what is owed, oldest first, without the payloads."""
    with opened(context) as service, service.database.read() as unit:
        found = outbox.find(
            unit,
            status=status.value if status else None,
            sink=sink,
            after=find_id(unit, OutboxMessage, after) if after else "",
            limit=limit,
        )
        if not found:
            _known_sink(service, sink)
    if json:
        output.as_json([_data(message) for message in found])
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
    output.more(found, limit, "receipted outbox list")


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
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Everything of the sink that is dead.")] = False,
    json: AsJson = False,
) -> None:
    """Make dead effects due again; the dispatcher of `serve` or `worker` delivers them."""
    if bool(message_ids) == all_dead or all_dead != (sink is not None):
        raise InvalidInput("give either IDs, or --sink NAME together with --all-dead", param="id")
    with opened(context) as service:
        found = _dead(service, sink) if sink is not None else _named(service, message_ids or [])

        async def work(commands: Commands) -> list[OutboxMessage]:
            done = []
            for message_id in tracked(found, "Redriving"):
                try:
                    done.append(await commands.redrive(message_id, reason=reason, by=by))
                except NotFound:
                    if sink is None:
                        raise
                    output.note(f"{message_id} is not dead any more")
            return done

        redriven = command(service, work)
    if json:
        output.as_json([_data(message) for message in redriven])
        return
    for message in redriven:
        output.say(f"{message.id}  {message.effect} to {message.sink} is due again")
    output.note(f"{len(redriven)} redriven")


def _named(service: Service, texts: list[str]) -> list[str]:
    with service.database.read() as unit:
        return [find_id(unit, OutboxMessage, text) for text in texts]


def _dead(service: Service, sink: str) -> list[str]:
    _known_sink(service, sink)
    found: list[str] = []
    after = ""
    with service.database.read() as unit:
        while page := outbox.find(unit, status=OutboxStatus.DEAD.value, sink=sink, after=after, limit=_PAGE):
            found += (message.id for message in page)
            after = page[-1].id
    return found


def _known_sink(service: Service, name: str | None) -> None:
    sinks = [sink.name for sink in service.settings.sinks]
    if name is not None and name not in sinks:
        raise NotFound(f"no sink {name!r}; there are: {', '.join(sinks)}", param="sink")


def _data(message: OutboxMessage) -> dict[str, object]:
    return output.row_of(message, without=("payload",))
