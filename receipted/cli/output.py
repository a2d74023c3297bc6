"""Output of commands: tables for people, JSON and CSV for machines, progress bars, and failures."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    track,
)
from rich.table import Table
from rich.text import Text

from receipted.errors import ConfigurationError
from service import csv_text
from service import text as service_text
from statemachine.errors import InvalidAmount, ServiceError
from statemachine.money import from_minor
from storage.database import values
from storage.ids import new_id

#: Columns of a table where the output is no terminal: wide enough that nothing is cut.
_WIDE: Final = 240

#: Columns of a value beyond which it may be told in several lines.
_WRAPPED: Final = 28

_GAP: Final = 2  #: columns between two values

#: Titles of the columns whose values are copied in one piece.
_WHOLE: Final = frozenset({"ID", "Hash"})

#: Titles of the columns whose values are amounts, which are compared by their ends.
_MONEY: Final = frozenset({"Amount", "Today", "Yesterday"})

shown, short = service_text.shown, service_text.short


def say(line: str) -> None:
    """One line of the answer, on stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """One line beside the answer, on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def machine(content: bytes) -> None:
    """The answer for programs, on stdout, in UTF-8 whatever the terminal's encoding is."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # something that takes text alone stands in its place
        sys.stdout.write(content.decode())
    else:
        sys.stdout.flush()
        buffer.write(content)
    sys.stdout.flush()


def as_json(data: Any) -> None:
    """The answer as JSON, and nothing else, on stdout; instants are ISO 8601 with Z."""
    machine(f"{json.dumps(data, default=plain, indent=2)}\n".encode())


def as_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as CSV, and nothing else, on stdout: their names first, then what --json has, with lists as JSON.

    UTF-8 whatever the terminal has. Of no rows there is no line.
    """
    machine(csv_text.encoded([[*rows[0]], *(row.values() for row in rows)] if rows else []))


def failure(error: ServiceError, *, as_json: bool) -> None:
    """A named failure: `error: message (code)` on stderr, or the JSON error shape on stdout."""
    if not as_json:
        message = shown(error.message, keep="\n")  # settings have one line for each fault
        note(f"error: {message} ({shown(error.code)})")
        return
    data: dict[str, Any] = dict(error.as_json(new_id()))
    if isinstance(error, ConfigurationError):
        data["faults"] = [
            {"setting": fault.setting, "problem": fault.problem, "remedy": fault.remedy} for fault in error.faults
        ]
    machine(f"{json.dumps(data, indent=2)}\n".encode())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout. Values are text, never markup, and cannot steer the terminal.

    Where a terminal is too narrow for every column, the last ones stand below each row, with their names.
    """
    texts = [[shown(value) for value in row] for row in rows]
    beside = _beside(columns, texts, console().width)
    if beside < len(columns):
        _folded(columns, texts, beside)
        return
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, _widths(columns, texts), strict=True):
        is_whole = column in _WHOLE or width <= _WRAPPED
        made.add_column(column, overflow="fold", no_wrap=is_whole, justify="right" if column in _MONEY else "left")
    for row in texts:
        made.add_row(*(Text(text) for text in row))
    console().print(made)


def _widths(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, (column, *(row[at] for row in texts)))) for at, column in enumerate(columns)]


def _beside(columns: Sequence[str], texts: Sequence[Sequence[str]], width: int) -> int:
    """How many columns stand beside each other: all, or as many as fit in front of the rest, and one at least."""
    widths = zip(columns, _widths(columns, texts), strict=True)
    needed = [each if name in _WHOLE else min(each, _WRAPPED) for name, each in widths]
    if sum(needed) + _GAP * (len(needed) - 1) <= width:
        return len(columns)
    fitting = 1
    while fitting < len(columns) and sum(needed[: fitting + 1]) + _GAP * fitting <= width:
        fitting += 1
    return fitting


def _folded(columns: Sequence[str], texts: Sequence[Sequence[str]], beside: int) -> None:
    """Rows of which only the first columns stand beside each other; what is empty below is left out."""
    target, widths = console(), _widths(columns, texts)

    def line(cells: Sequence[str]) -> str:
        given = zip(cells[:beside], columns[:beside], widths, strict=False)
        padded = (set_cell_size(cell.rjust(width) if name in _MONEY else cell, width) for cell, name, width in given)
        return (" " * _GAP).join(padded).rstrip()

    target.print(Text(line(columns), style="bold"))
    for row in texts:
        target.print(Text(line(row)), soft_wrap=True)
        rest = [f"{name.lower()}: {cell}" for name, cell in zip(columns[beside:], row[beside:], strict=True) if cell]
        if rest:
            target.print(Padding(Text(" | ".join(rest), style="dim"), (0, 0, 0, _GAP), expand=False))


def fields(pairs: Mapping[str, Any]) -> None:
    """Name and value, one pair a line; what has no value is left out."""
    given = {name: value for name, value in pairs.items() if value is not None and value != ""}
    width = max(map(len, given), default=0)
    for name, value in given.items():
        say(f"{name:<{width}}  {shown(value)}")


def console(*, on_stderr: bool = False) -> Console:
    """A console on stdout or stderr as it is now; without markup, highlights and, off a terminal, colours."""
    stream = sys.stderr if on_stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def amount(minor: int | None, currency: str | None) -> str | None:
    """Decimal major units with their currency; minor units where there is no currency to tell the places."""
    if minor is None:
        return None
    if currency is None:
        return f"{minor} minor units"
    try:
        return f"{from_minor(minor, currency)} {currency}"
    except InvalidAmount:
        return f"{minor} minor units of {currency}"


def row_of(record: Any, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The record's columns by name, but for some."""
    return {name: value for name, value in values(record).items() if name not in without}


def more(rows: Sequence[Any], limit: int) -> None:
    """Say how to go on where a list was cut at its limit."""
    if len(rows) == limit:
        note(f"there may be more: the same with --after {rows[-1].id}")


def plain(value: Any) -> Any:
    """What JSON has no form for, in one that it has."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Path | Enum):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON here")


Item = TypeVar("Item")

#: Fewer are done before a bar could be read.
_MANY: Final = 10


def bar() -> Progress:
    """A progress display; shows nothing off a terminal, and leaves nothing behind."""
    return Progress(console=console(on_stderr=True), transient=True, disable=not sys.stderr.isatty())


class _Rate(ProgressColumn):
    """How many are done in a second, as soon as that can be told."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def counting() -> Progress:
    """A progress display with count, rate and time left; shows nothing off a terminal, and leaves nothing behind."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console(on_stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        speed_estimate_period=120.0,  # a budget may allow a few requests a minute
    )


def tracked(items: Sequence[Item], doing: str) -> Iterator[Item]:
    """The items, with a progress bar while many are worked on."""
    is_shown = sys.stderr.isatty() and len(items) >= _MANY
    yield from track(items, doing, console=console(on_stderr=True), transient=True, disable=not is_shown)
