"""The command `receipted`: every command in one tree, with one way to fail."""

from pathlib import Path
from typing import Annotated

import typer

from receipted.cli import (
    asking,
    audit_history,
    auditing,
    configuration,
    inbox,
    keys,
    lifecycles,
    outbox,
    payments,
    playing,
    processes,
    reconciliations,
    rejected,
    users,
    webhooks,
)
from receipted.cli.accounts import accounts
from receipted.cli.actions import actions
from receipted.cli.context import example
from receipted.cli.doctor import doctor
from receipted.cli.events import events
from receipted.cli.exits import EXIT_CODES, ReceiptedGroup
from receipted.cli.following import listen, tail
from receipted.cli.money import money
from receipted.cli.overview import overview
from receipted.cli.push import push_quality
from receipted.cli.reconcile import reconcile
from receipted.cli.retention import retention
from receipted.demo.command import demo
from receipted.stopping import leave

app = typer.Typer(
    cls=ReceiptedGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(epilog=f"{example('receipted --config receipted.toml serve --migrate')}\n\n{EXIT_CODES}")
def receipted(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help="The settings; else the file that RECEIPTED_CONFIG names, else receipted.toml.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Receipted tells a merchant, for certain and with proof, when it has been paid."""


app.command(epilog=example("receipted serve --migrate"))(processes.serve)
app.command(epilog=example("receipted --config receipted.toml web"))(processes.web)
app.command(epilog=example("receipted --config receipted.toml worker"))(processes.worker)
app.command(epilog=example("receipted sandbox --speed 60 --faults lose=0.1,duplicate=0.2 --payers"))(playing.sandbox)
app.command(epilog=example("receipted demo --payments 400 --seed 7"))(demo)
app.command(epilog=example("receipted migrate", "receipted migrate --check"))(processes.migrate)
app.command(epilog=example("receipted overview", "receipted overview --json"))(overview)
app.command(epilog=example("receipted money", "receipted money 2026-11-21 --account shop --way in --payments"))(money)
payments.app.add_typer(asking.app)
app.add_typer(payments.app, name="payments", epilog=example("receipted payments list --review"))
app.add_typer(inbox.app, name="inbox", epilog=example("receipted inbox list --status parked"))
app.add_typer(outbox.app, name="outbox", epilog=example("receipted outbox list --status dead"))
app.add_typer(rejected.app, name="rejected", epilog=example("receipted rejected list shop"))
app.command(epilog=example("receipted actions", "receipted actions --by ada --since 7d --json"))(actions)
app.command(epilog=example("receipted events", "receipted events --after 1042 --wait 30 --json"))(events)
app.command(epilog=example("receipted accounts", "receipted accounts shop --settings"))(accounts)
app.command(name="push-quality", epilog=example("receipted push-quality", "receipted push-quality shop --since 30d"))(
    push_quality
)
app.command(epilog=example("receipted doctor https://pay.example.com", "receipted doctor --account shop"))(doctor)
app.command(epilog=example("receipted listen shop"))(listen)
app.command(epilog=example("receipted tail", "receipted tail --account shop --json"))(tail)
app.add_typer(webhooks.app, name="webhooks", epilog=example("receipted webhooks register shop"))
app.command(
    epilog=example("receipted reconcile shop --since 2d", "receipted reconcile shop --since 2026-11-01 --format csv")
)(reconcile)
app.add_typer(
    reconciliations.app, name="reconciliations", epilog=example("receipted reconciliations list --account shop")
)
app.command(epilog=example("receipted retention", 'receipted retention --run --by "Ada L."'))(retention)
auditing.app.add_typer(audit_history.app)
app.add_typer(auditing.app, name="audit", epilog=example("receipted audit verify"))
app.command(epilog=example("receipted lifecycles banked --mermaid"))(lifecycles.lifecycles)
app.add_typer(keys.app, name="keys", epilog=example("receipted keys list"))
app.add_typer(users.app, name="users", epilog=example("receipted users list"))
app.add_typer(configuration.app, name="config", epilog=example("receipted config check"))


def main() -> None:
    """Run the command that was typed; leaves the process with its exit code, whatever its threads still do."""
    try:
        app()
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 1 if end.code else 0)
