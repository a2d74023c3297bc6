"""The command `receipted`: a tree of commands, each imported when it is run."""

import threading
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer._click import Command, Context, HelpFormatter

from receipted.cli.exits import EXIT_CODES, ReceiptedGroup, example

_CLI: Final = "receipted.cli"


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command or group, with the summary that `receipted --help` shows."""

    target: str  #: module:name of a function, or of a group, which is called app
    summary: str  #: the first line of its help; a test compares them
    examples: tuple[str, ...]

    def load(self, name: str) -> Command:
        """Import the command and build it."""
        tree = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        tree.callback()(_no_callback)  # a tree of one command is a tree
        found, epilog = _resolve(self.target), example(*self.examples)
        if self.target.endswith(":app"):
            tree.add_typer(found, name=name, epilog=epilog)
        else:
            tree.command(name, epilog=epilog)(found)
        return typer.main.get_group(tree).commands[name]


def _resolve(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _no_callback() -> None:
    """Make a tree of a single command a tree."""


#: Every command by the section of the help that shows it, both in its order.
SECTIONS: Final = {
    "Start here": {
        "demo": CommandSpec(
            "receipted.demo.command:demo",
            "Order payments at four misbehaving providers, and prove that all ended right.",
            ("receipted demo --payments 400 --seed 7",),
        ),
        "sandbox": CommandSpec(
            f"{_CLI}.sandbox:sandbox",
            "Simulate the four providers over real HTTP.",
            ("receipted sandbox --speed 60 --faults lose=0.1,duplicate=0.2 --payers",),
        ),
        "init": CommandSpec(
            f"{_CLI}.configuration:init",
            "Ask for a provider and two URLs, and write settings with new secrets.",
            (
                "receipted init",
                "receipted init --provider payfield --public-url https://pay.example.com --shop-url https://example.com/paid",
            ),
        ),
        "config": CommandSpec(f"{_CLI}.configuration:app", "Check the settings.", ("receipted config check",)),
        "doctor": CommandSpec(
            f"{_CLI}.doctor:doctor",
            "Send a signed trial delivery through the public URL, and say what is wrong.",
            ("receipted doctor https://pay.example.com", "receipted doctor --account shop"),
        ),
    },
    "Run": {
        "migrate": CommandSpec(
            f"{_CLI}.processes:migrate",
            "Bring the database to the newest schema.",
            ("receipted migrate", "receipted migrate --check"),
        ),
        "serve": CommandSpec(
            f"{_CLI}.processes:serve", "Run everything: web and worker, a process each.", ("receipted serve --migrate",)
        ),
        "web": CommandSpec(
            f"{_CLI}.processes:web",
            "Run the receiver, the API and the console without the worker.",
            ("receipted --config receipted.toml web",),
        ),
        "worker": CommandSpec(
            f"{_CLI}.processes:worker",
            "Run the worker alone; any number of them may run.",
            ("receipted --config receipted.toml worker",),
        ),
    },
    "Look": {
        "overview": CommandSpec(
            f"{_CLI}.overview:overview",
            "Show today's money, what needs a person, what waits, and each account's state.",
            ("receipted overview", "receipted overview --json"),
        ),
        "money": CommandSpec(
            f"{_CLI}.overview:money",
            "Show one day's money by account and currency, or with --payments each payment.",
            ("receipted money", "receipted money 2026-11-21 --account shop --way in --payments"),
        ),
        "payments": CommandSpec(
            f"{_CLI}.payments:app",
            "List, show, create, track, refresh, cancel, capture, refund and resolve payments.",
            ("receipted payments list --review",),
        ),
        "events": CommandSpec(
            f"{_CLI}.events:events",
            "List the effects after a position of the feed, the oldest first, each once.",
            ("receipted events", "receipted events --after 1042 --wait 30 --json"),
        ),
        "tail": CommandSpec(
            f"{_CLI}.tail:tail",
            "Print deliveries, decisions, moves, effects and attempts as they happen.",
            ("receipted tail", "receipted tail --account shop --json"),
        ),
        "listen": CommandSpec(
            f"{_CLI}.tail:listen",
            "Print an account's deliveries as they arrive, each with its decision.",
            ("receipted listen shop", "receipted listen shop --forward-to http://127.0.0.1:5000/effects"),
        ),
    },
    "Messages": {
        "inbox": CommandSpec(
            f"{_CLI}.inbox:app",
            "List, show and replay inbox messages.",
            ("receipted inbox list --status parked",),
        ),
        "outbox": CommandSpec(
            f"{_CLI}.outbox:app",
            "List, show and redrive effects owed to sinks.",
            ("receipted outbox list --status dead",),
        ),
        "rejected": CommandSpec(
            f"{_CLI}.rejected:app",
            "List, show and redeem rejected deliveries in quarantine.",
            ("receipted rejected list shop",),
        ),
    },
    "Providers": {
        "accounts": CommandSpec(
            f"{_CLI}.accounts:accounts",
            "Show how each account is polled: budget, load, and the provider's availability.",
            ("receipted accounts", "receipted accounts shop --settings"),
        ),
        "push-quality": CommandSpec(
            f"{_CLI}.push_quality:push_quality",
            "Show the quality of each provider's webhooks: pushed, late and lost changes.",
            ("receipted push-quality", "receipted push-quality shop --since 30d"),
        ),
        "reconcile": CommandSpec(
            f"{_CLI}.reconciliations:reconcile",
            "Compare a provider's payments with what is known here, and report the drift.",
            ("receipted reconcile shop --since 2d", "receipted reconcile shop --since 2026-11-01 --format csv"),
        ),
        "reconciliations": CommandSpec(
            f"{_CLI}.reconciliations:app",
            "List and show reconciliations.",
            ("receipted reconciliations list --account shop",),
        ),
        "trigger": CommandSpec(
            f"{_CLI}.trigger:trigger",
            "Send a signed sample of an effect to your endpoint, and show its answer.",
            ("receipted trigger payment.paid --to http://127.0.0.1:5000/effects",),
        ),
        "webhooks": CommandSpec(
            f"{_CLI}.webhooks:app", "Register webhook URLs with providers.", ("receipted webhooks register shop",)
        ),
        "providers": CommandSpec(
            f"{_CLI}.providers:app",
            "List the providers, and prove their pages from outside.",
            ("receipted providers list", "receipted providers check pages/acme.toml"),
        ),
        "lifecycles": CommandSpec(
            f"{_CLI}.lifecycles:lifecycles",
            "Show the states that payments may go through.",
            ("receipted lifecycles banked --mermaid",),
        ),
    },
    "Prove and keep": {
        "audit": CommandSpec(
            f"{_CLI}.audit:app",
            "Prove the history from what is stored, and export it for others to check.",
            ("receipted audit verify",),
        ),
        "actions": CommandSpec(
            f"{_CLI}.actions:actions",
            "List the actions of named people and keys with their reasons, the newest first.",
            ("receipted actions", "receipted actions --by ada --since 7d --json"),
        ),
        "retention": CommandSpec(
            f"{_CLI}.retention:retention",
            "Show what retention would delete and has deleted; with --run, run it now.",
            ("receipted retention", 'receipted retention --run --by "Ada L."'),
        ),
    },
    "Access": {
        "users": CommandSpec(f"{_CLI}.users:app", "Manage the users of the console.", ("receipted users list",)),
        "keys": CommandSpec(f"{_CLI}.keys:app", "Manage the API keys of your programs.", ("receipted keys list",)),
    },
}

COMMANDS: Final = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _LazyCommands(MutableMapping[str, Command]):
    """The commands by name; each is imported on first access."""

    def __init__(self) -> None:
        self._loaded: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._loaded:
            self._loaded[name] = COMMANDS[name].load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class RootGroup(ReceiptedGroup):
    """Root command that lists its commands without importing them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands = _LazyCommands()

    def list_commands(self, _ctx: Context) -> list[str]:
        """Return the command names in the order of the help."""
        return list(COMMANDS)

    def format_commands(self, _ctx: Context, formatter: HelpFormatter) -> None:
        """Write the commands by section, each with its whole summary."""
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in commands.items()])


app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(is_wanted: bool) -> None:
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
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Receipted tells a merchant, for certain and with proof, when it has been paid."""


def main() -> None:
    """Run the command and leave with its exit code, whatever its threads still do."""
    try:
        app()
    except SystemExit as end:
        if threading.active_count() == 1:
            raise  # nothing else is under way, as after a help
        from receipted.runtime import exit_process  # noqa: PLC0415 - see exits.py

        exit_process(end.code if isinstance(end.code, int) else 1 if end.code else 0)
