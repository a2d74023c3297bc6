"""The command `receipted`: every command in one tree, each imported when it is typed."""

import threading
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer._click import Command, Context, HelpFormatter
from typer._click.utils import make_default_short_help

from receipted.cli.exits import EXIT_CODES, ReceiptedGroup, example

_CLI: Final = "receipted.cli"


@dataclass(frozen=True, slots=True)
class Entry:
    """One command or group, and what `receipted --help` says of it unimported."""

    place: str  #: module:name of a function, or of a group, which is called app
    summary: str  #: the first line of its help; a test compares them
    examples: tuple[str, ...]

    def load(self, name: str) -> Command:
        """Import it."""
        tree = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        tree.callback()(_nothing)  # a tree of one command is a tree
        found, epilog = _found(self.place), example(*self.examples)
        if self.place.endswith(":app"):
            tree.add_typer(found, name=name, epilog=epilog)
        else:
            tree.command(name, epilog=epilog)(found)
        return typer.main.get_group(tree).commands[name]


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _nothing() -> None:
    """Nothing."""


#: Every command, in the order of the help.
ENTRIES: Final = {
    "serve": Entry(f"{_CLI}.processes:serve", "Run everything in one process.", ("receipted serve --migrate",)),
    "web": Entry(
        f"{_CLI}.processes:web", "Run the way in and the API alone.", ("receipted --config receipted.toml web",)
    ),
    "worker": Entry(
        f"{_CLI}.processes:worker",
        "Run the work alone; any number may run.",
        ("receipted --config receipted.toml worker",),
    ),
    "sandbox": Entry(
        f"{_CLI}.sandbox:sandbox",
        "Play the four providers over real HTTP.",
        ("receipted sandbox --speed 60 --faults lose=0.1,duplicate=0.2 --payers",),
    ),
    "demo": Entry(
        "receipted.demo.command:demo",
        "Order payments at four misbehaving providers, and prove that all ended right.",
        ("receipted demo --payments 400 --seed 7",),
    ),
    "migrate": Entry(
        f"{_CLI}.processes:migrate",
        "Bring the database to the newest schema.",
        ("receipted migrate", "receipted migrate --check"),
    ),
    "overview": Entry(
        f"{_CLI}.overview:overview",
        "Show how everything stands: money today, what needs a person, what waits, and how each account does.",
        ("receipted overview", "receipted overview --json"),
    ),
    "money": Entry(
        f"{_CLI}.overview:money",
        "Show what a day brought by account and currency, or with --payments each payment that is counted.",
        ("receipted money", "receipted money 2026-11-21 --account shop --way in --payments"),
    ),
    "payments": Entry(
        f"{_CLI}.payments:app",
        "What is known of payments, and what may be asked for.",
        ("receipted payments list --review",),
    ),
    "inbox": Entry(
        f"{_CLI}.inbox:app",
        "Authentic statements, verbatim, and what was decided about them.",
        ("receipted inbox list --status parked",),
    ),
    "outbox": Entry(
        f"{_CLI}.outbox:app",
        "Effects that are owed to sinks, and how their deliveries went.",
        ("receipted outbox list --status dead",),
    ),
    "rejected": Entry(
        f"{_CLI}.rejected:app",
        "The quarantine: deliveries that were not authentic, kept for a while.",
        ("receipted rejected list shop",),
    ),
    "actions": Entry(
        f"{_CLI}.actions:actions",
        "List what named people and keys did here, and why, the newest first.",
        ("receipted actions", "receipted actions --by ada --since 7d --json"),
    ),
    "events": Entry(
        f"{_CLI}.events:events",
        "List the effects that follow a place in the feed, the oldest first: each once, and none is passed over.",
        ("receipted events", "receipted events --after 1042 --wait 30 --json"),
    ),
    "accounts": Entry(
        f"{_CLI}.accounts:accounts",
        "Show how each account is asked: its budget, how much it has to ask, and whether the provider is away.",
        ("receipted accounts", "receipted accounts shop --settings"),
    ),
    "push-quality": Entry(
        f"{_CLI}.push_quality:push_quality",
        "Show what the providers' webhooks were worth: what they told, told late or never, and how soon.",
        ("receipted push-quality", "receipted push-quality shop --since 30d"),
    ),
    "doctor": Entry(
        f"{_CLI}.doctor:doctor",
        "Send a signed trial through the public URL, and say in words what is wrong.",
        ("receipted doctor https://pay.example.com", "receipted doctor --account shop"),
    ),
    "listen": Entry(
        f"{_CLI}.tail:listen",
        "Print an account's deliveries as they come, authentic or not, each with what was decided.",
        ("receipted listen shop",),
    ),
    "tail": Entry(
        f"{_CLI}.tail:tail",
        "Print what happens as it happens: deliveries, decisions, moves, effects and each try to deliver one.",
        ("receipted tail", "receipted tail --account shop --json"),
    ),
    "webhooks": Entry(f"{_CLI}.webhooks:app", "Where providers deliver.", ("receipted webhooks register shop",)),
    "reconcile": Entry(
        f"{_CLI}.reconciliations:reconcile",
        "Compare what a provider has with what is known here, and report what differed.",
        ("receipted reconcile shop --since 2d", "receipted reconcile shop --since 2026-11-01 --format csv"),
    ),
    "reconciliations": Entry(
        f"{_CLI}.reconciliations:app",
        "What reconciliations found, whoever wanted them.",
        ("receipted reconciliations list --account shop",),
    ),
    "retention": Entry(
        f"{_CLI}.retention:retention",
        "Show what retention would throw away by the settings, and what it has thrown away; with --run, do it.",
        ("receipted retention", 'receipted retention --run --by "Ada L."'),
    ),
    "audit": Entry(
        f"{_CLI}.audit:app",
        "Proves the history from what is kept, and exports it for others to check.",
        ("receipted audit verify",),
    ),
    "lifecycles": Entry(
        f"{_CLI}.lifecycles:lifecycles",
        "Show what payments may go through.",
        ("receipted lifecycles banked --mermaid",),
    ),
    "keys": Entry(f"{_CLI}.keys:app", "The keys that programs of yours call the API with.", ("receipted keys list",)),
    "users": Entry(f"{_CLI}.users:app", "The people who use the console.", ("receipted users list",)),
    "config": Entry(f"{_CLI}.configuration:app", "The settings.", ("receipted config check",)),
}


class _Commands(MutableMapping[str, Command]):
    """The commands by name; one is imported when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._made:
            self._made[name] = ENTRIES[name].load(name)
        return self._made[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


class Root(ReceiptedGroup):
    """The root command; lists its commands without importing them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands = _Commands()

    def list_commands(self, _ctx: Context) -> list[str]:
        """Their names, in the order of the help."""
        return list(ENTRIES)

    def format_commands(self, _ctx: Context, formatter: HelpFormatter) -> None:
        """Write each with the beginning of its summary."""
        limit = formatter.width - 6 - max(map(len, ENTRIES))
        rows = [(name, make_default_short_help(entry.summary, limit)) for name, entry in ENTRIES.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(is_wanted: bool) -> None:
    """Print the version and leave."""
    if is_wanted:
        from importlib.metadata import version  # noqa: PLC0415 - no other command needs it

        typer.echo(f"receipted {version('receipted')}")
        raise typer.Exit


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
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Receipted tells a merchant, for certain and with proof, when it has been paid."""


def main() -> None:
    """Run the command that was typed; leaves the process with its exit code, whatever its threads still do."""
    try:
        app()
    except SystemExit as end:
        if threading.active_count() == 1:
            raise  # nothing else is under way, as after a help
        from receipted.stopping import leave  # noqa: PLC0415 - see exits.py

        leave(end.code if isinstance(end.code, int) else 1 if end.code else 0)
