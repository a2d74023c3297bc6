"""What commands have in common: their options, and the service that they work with."""

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import typer

from receipted import logs, redaction, settings
from receipted.commands import Commands
from receipted.errors import UnknownAccountName
from receipted.settings_sections import Settings
from receipted.startup import rehearse
from receipted.wiring import Service
from storage import migrate
from storage.errors import SchemaOutdated

Result = TypeVar("Result")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else, on stdout.")]
AccountName = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="The account's name in the settings.", show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the action.", show_default=False)]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides; kept with the action.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")]
After = Annotated[str | None, typer.Option("--after", metavar="ID", help="Go on after this one.", show_default=False)]

#: How ids are given, for the help of every command that takes one.
ID_HELP: Final = "The id, or at least 8 characters of its beginning or end."

_QUIET: Final = ("warning", "error")


def configured(context: typer.Context, *, is_process: bool = False) -> Settings:
    """The settings of this run, with logs on stderr and every secret registered for redaction.

    A command that is no process of its own logs warnings and errors only. Raises ConfigurationError.
    """
    path: Path | None = context.find_root().params.get("config")
    found = settings.load(path)
    redaction.register_secrets(found.secret_values())
    level = found.log.level
    logs.configure(
        level if is_process or level in _QUIET else "warning",
        _log_format(found.log.format),
        sample_above=found.log.sample_above,
        sample_every=found.log.sample_every,
    )
    return found


def _log_format(wanted: Literal["auto", "json", "console"]) -> logs.Format:
    """The wanted format; for auto, lines for people where stderr is a terminal."""
    if wanted != "auto":
        return wanted
    return "console" if sys.stderr.isatty() else "json"


@contextmanager
def opened(
    context: typer.Context, *, is_process: bool = False, checks_schema: bool = True, delivers: bool = True
) -> Iterator[Service]:
    """The service of this run, closed afterwards; raises ConfigurationError, SchemaOutdated or StorageUnavailable."""
    found = configured(context, is_process=is_process)
    if is_process:
        rehearse(found, delivers=delivers)
    service = Service(found)
    try:
        if is_process:
            settings.warn(found)
            _tell_lines_at_once()
        if checks_schema:
            check_schema(service)
        yield service
    finally:
        service.close()


def _tell_lines_at_once() -> None:
    """What a handler of the user's prints is read when it is printed: a pipe or a journal would get it by 8 KiB."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def check_schema(service: Service) -> None:
    """Return when the database has the newest schema; raises SchemaOutdated, and creates no file in order to find out.

    Raises StorageUnavailable where it cannot be read.
    """
    if migrate.is_absent(service.database):
        raise SchemaOutdated("there is no database yet: run receipted migrate")
    migrate.check(service.database)


def command(service: Service, do: Callable[[Commands], Awaitable[Result]]) -> Result:
    """The result of one command (receipted/commands.py), with the providers' clients open while it runs."""

    async def run() -> Result:
        async with service.clients() as clients:
            return await do(Commands(service, clients))

    return asyncio.run(run())


def subcommands(help_text: str) -> typer.Typer:
    """A group of commands that shows its help when it is called alone."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def known_account(service: Service, name: str | None) -> None:
    """Return for the name of a configured account, and for none; raises UnknownAccountName."""
    if name is not None and name not in service.accounts:
        raise UnknownAccountName(f"no account {name!r}; there are: {', '.join(service.accounts)}", param="account")
