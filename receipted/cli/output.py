"""Output of commands: tables, JSON, CSV, progress bars and errors."""

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
from statemachine.errors import ServiceError
from statemachine.money import amount_text
from storage.database import values
from storage.ids import new_id
from storage.inbox import SHOWN
from storage.tables import InboxMessage

#: Columns of a table where the output is no terminal: wide enough that nothing is cut.
_PIPE_WIDTH: Final = 240

#: A longer value may be wrapped.
_MAX_UNWRAPPED_CHARS: Final = 28

_GAP: Final = 2  #: columns between two values

#: Titles of the columns whose values are copied in one piece.
_UNBROKEN_COLUMNS: Final = frozenset({"ID", "Hash"})

#: Titles of the columns whose values are amounts, which are compared by their ends.
_MONEY_COLUMNS: Final = frozenset({"Amount", "Today", "Yesterday"})

shown, short = service_text.shown, service_text.short


def say(line: str) -> None:
    """Print one line of the answer on stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """Print one line beside the answer on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def write_bytes(content: bytes) -> None:
    """Write the answer for programs to stdout, in UTF-8 whatever the terminal has."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # something that takes text alone stands in its place
        sys.stdout.write(content.decode())
    else:
        sys.stdout.flush()
        buffer.write(content)
    sys.stdout.flush()


def as_json(data: Any) -> None:
    """Print the answer as JSON alone on stdout; instants are ISO 8601 with Z."""
    write_bytes(f"{json.dumps(data, default=json_default, indent=2)}\n".encode())


def as_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows as CSV alone on stdout, with a header of their names.

    The values are those of --json, with lists as JSON. UTF-8 whatever the terminal has. No rows give no line.
    """
    write_bytes(csv_text.encoded([[*rows[0]], *(row.values() for row in rows)] if rows else []))


def print_error(error: ServiceError, *, as_json: bool) -> None:
    """Print a named failure on stderr, or as the JSON error shape on stdout."""
    if not as_json:
        message = shown(error.message, keep="\n")  # settings have one line for each fault
        note(f"error: {message} ({shown(error.code)})")
        return
    data: dict[str, Any] = dict(error.as_json(new_id()))
    if isinstance(error, ConfigurationError):
        data["faults"] = [
            {"setting": fault.setting, "problem": fault.problem, "remedy": fault.remedy} for fault in error.faults
        ]
    write_bytes(f"{json.dumps(data, indent=2)}\n".encode())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table on stdout; values are text, never markup or terminal controls.

    Where a terminal is too narrow for every column, the last ones stand below each row, with their names.
    """
    texts = [[shown(value) for value in row] for row in rows]
    fitting_count = _columns_that_fit(columns, texts, console().width)
    if fitting_count < len(columns):
        _print_folded(columns, texts, fitting_count)
        return
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, _widths(columns, texts), strict=True):
        is_whole = column in _UNBROKEN_COLUMNS or width <= _MAX_UNWRAPPED_CHARS
        made.add_column(
            column, overflow="fold", no_wrap=is_whole, justify="right" if column in _MONEY_COLUMNS else "left"
        )
    for row in texts:
        made.add_row(*(Text(text) for text in row))
    console().print(made)


def _widths(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, (column, *(row[at] for row in texts)))) for at, column in enumerate(columns)]


def _columns_that_fit(columns: Sequence[str], texts: Sequence[Sequence[str]], width: int) -> int:
    """Return how many columns fit in the width side by side, at least one."""
    widths = zip(columns, _widths(columns, texts), strict=True)
    needed = [each if name in _UNBROKEN_COLUMNS else min(each, _MAX_UNWRAPPED_CHARS) for name, each in widths]
    if sum(needed) + _GAP * (len(needed) - 1) <= width:
        return len(columns)
    fitting = 1
    while fitting < len(columns) and sum(needed[: fitting + 1]) + _GAP * fitting <= width:
        fitting += 1
    return fitting


def _print_folded(columns: Sequence[str], texts: Sequence[Sequence[str]], fitting_count: int) -> None:
    """Print rows whose last columns do not fit, with those below each row.

    Empty values below a row are left out.
    """
    target, widths = console(), _widths(columns, texts)

    def line(cells: Sequence[str]) -> str:
        given = zip(cells[:fitting_count], columns[:fitting_count], widths, strict=False)
        padded = (
            set_cell_size(cell.rjust(width) if name in _MONEY_COLUMNS else cell, width) for cell, name, width in given
        )
        return (" " * _GAP).join(padded).rstrip()

    target.print(Text(line(columns), style="bold"))
    for row in texts:
        target.print(Text(line(row)), soft_wrap=True)
        rest = [
            f"{name.lower()}: {cell}"
            for name, cell in zip(columns[fitting_count:], row[fitting_count:], strict=True)
            if cell
        ]
        if rest:
            target.print(Padding(Text(" | ".join(rest), style="dim"), (0, 0, 0, _GAP), expand=False))


def fields(pairs: Mapping[str, Any]) -> None:
    """Print name and value, one pair a line, without empty values."""
    given = {name: value for name, value in pairs.items() if value is not None and value != ""}
    width = max(map(len, given), default=0)
    for name, value in given.items():
        say(f"{name:<{width}}  {shown(value)}")


def console(*, on_stderr: bool = False) -> Console:
    """Create a console on the current stdout or stderr, without markup and highlights.

    Off a terminal it has no colours.
    """
    stream = sys.stderr if on_stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def amount(minor: int | None, currency: str | None) -> str | None:
    """Format an amount in major units with its currency, else in minor units."""
    if minor is None:
        return None
    return amount_text(minor, currency)


def columns_of(record: Any, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the record's columns by name, except some."""
    names = SHOWN if isinstance(record, InboxMessage) else None
    return {name: value for name, value in values(record, names).items() if name not in without}


def print_more_hint(rows: Sequence[Any], limit: int) -> None:
    """Print how to continue if a list was cut at its limit."""
    if len(rows) == limit:
        note(f"there may be more: the same with --after {rows[-1].id}")


def json_default(value: Any) -> Any:
    """Convert a value that JSON has no form for."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Path | Enum):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON here")


Item = TypeVar("Item")

#: Fewer are done before a bar could be read.
_MIN_TRACKED_ITEMS: Final = 10


def bar() -> Progress:
    """Create a transient progress display; hidden off a terminal."""
    return Progress(console=console(on_stderr=True), transient=True, disable=not sys.stderr.isatty())


class _Rate(ProgressColumn):
    """Column of the items done per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def counting() -> Progress:
    """Create a transient progress display with count, rate and time left.

    Hidden off a terminal.
    """
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


def with_progress(items: Sequence[Item], doing: str) -> Iterator[Item]:
    """Yield the items, with a progress bar if there are many."""
    is_shown = sys.stderr.isatty() and len(items) >= _MIN_TRACKED_ITEMS
    yield from track(items, doing, console=console(on_stderr=True), transient=True, disable=not is_shown)
