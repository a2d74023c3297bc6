"""Options and arguments that commands share, and the parsing of their values."""

import asyncio
import io
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import typer

from api.errors import InvalidRequest
from api.strict_json import check_json
from receipted import logs, redaction
from receipted.cli.exits import InvalidInput
from receipted.settings import load
from receipted.settings.models import Settings
from receipted.startup import rehearse
from receipted.wiring import Service
from service.commands import Commands
from service.errors import UnknownAccountName
from storage import migrate
from storage.errors import SchemaOutdated


def parse_fields(given: Sequence[str], *, option: str = "extra") -> dict[str, object]:
    """Parse `key=value` texts and JSON objects into fields; the last of a name wins.

    `key=value` gives text. Raises InvalidInput.
    """
    found: dict[str, object] = {}
    for text in given:
        found.update(_object(text, option) if text.lstrip().startswith("{") else _pair(text, option))
    return found


def parse_pairs(given: Sequence[str], *, option: str) -> dict[str, str]:
    """Parse `key=value` texts only.

    Raises InvalidInput for another form, and for a key that is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        ((key, value),) = _pair(text, option).items()
        if key in found:
            raise InvalidInput(f"--{option} has {key!r} twice", param=option)
        found[key] = value
    return found


def _pair(text: str, option: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InvalidInput(f"--{option} takes key=value or a JSON object, not {text!r}", param=option)
    return {key.strip(): value}


def _object(text: str, option: str) -> dict[str, object]:
    try:
        check_json(text)
        found = json.loads(text)
    except (InvalidRequest, ValueError) as fault:
        raise InvalidInput(f"--{option} is not JSON: {fault}", param=option) from fault
    if not isinstance(found, dict):
        raise InvalidInput(f"--{option} takes a JSON object", param=option)
    return found


_DURATION: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_instant(text: str, now: datetime, *, option: str) -> datetime:
    """Parse an instant: ISO 8601, or an age such as `2d` or `36h`.

    UTC where no zone is named; a day is its first instant. Raises InvalidInput for anything else.
    """
    try:
        if ago := _DURATION.fullmatch(text.strip()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"--{option} takes a moment such as 2026-11-01, 2026-11-01T12:00Z or 2d (so long ago), not {text!r}",
            param=option,
        ) from None


def parse_duration(text: str, *, option: str) -> timedelta:
    """Parse a duration such as `90d` or `12h`; raises InvalidInput."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"--{option} takes a span such as 90d or 12h, not {text!r}", param=option)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def format_seconds(seconds: float | None) -> str:
    """Format a duration in its two largest units, such as `2h 5m`; empty for None."""
    if seconds is None:
        return ""
    left, words = round(seconds), list[str]()
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
    return " ".join(words[:2])


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

_QUIET_LEVELS: Final = ("warning", "error")


def load_settings(context: typer.Context, *, is_process: bool = False) -> Settings:
    """Load the settings, set up logs on stderr, and register secrets for redaction.

    A command that is no process of its own logs warnings and errors only. Raises ConfigurationError.
    """
    path: Path | None = context.find_root().params.get("config")
    found = load.load(path)
    redaction.register_secrets(found.secret_values())
    level = found.log.level
    logs.configure(
        level if is_process or level in _QUIET_LEVELS else "warning",
        _log_format(found.log.format),
        sample_above=found.log.sample_above,
        sample_every=found.log.sample_every,
    )
    return found


def _log_format(wanted: Literal["auto", "json", "console"]) -> logs.Format:
    """Return the log format; `auto` is for people where stderr is a terminal."""
    if wanted != "auto":
        return wanted
    return "console" if sys.stderr.isatty() else "json"


@contextmanager
def open_service(
    context: typer.Context, *, is_process: bool = False, checks_schema: bool = True, delivers: bool = True
) -> Iterator[Service]:
    """Open the service of this run, and close it afterwards.

    Raises ConfigurationError, SchemaOutdated or StorageUnavailable.
    """
    found = load_settings(context, is_process=is_process)
    if is_process:
        rehearse(found, delivers=delivers)
    service = Service(found)
    try:
        if is_process:
            load.warn(found)
            _flush_each_line()
        if checks_schema:
            check_schema(service)
        yield service
    finally:
        service.close()


def _flush_each_line() -> None:
    """Flush stdout after each line: a pipe or a journal would get blocks of 8 KiB."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def check_schema(service: Service) -> None:
    """Raise SchemaOutdated unless the database has the newest schema.

    Creates no file. Raises StorageUnavailable where the database cannot be read.
    """
    if migrate.is_absent(service.database):
        raise SchemaOutdated("there is no database yet: run receipted migrate")
    migrate.check(service.database)


def run_command(service: Service, do: Callable[[Commands], Awaitable[Result]]) -> Result:
    """Run one command of service/commands.py with the providers' clients open."""

    async def run() -> Result:
        async with service.clients() as clients:
            return await do(service.commands(clients))

    return asyncio.run(run())


def subcommands(help_text: str) -> typer.Typer:
    """Create a group of commands that shows its help when called alone."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def require_account(service: Service, name: str | None) -> None:
    """Raise UnknownAccountName unless the name is None or a configured account."""
    if name is not None and name not in service.accounts:
        raise UnknownAccountName(f"no account {name!r}; there are: {', '.join(service.accounts)}", param="account")
