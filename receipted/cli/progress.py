"""Progress of long work, on stderr and only where that is a terminal."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

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
from rich.text import Text

from receipted.cli import output

Item = TypeVar("Item")

#: Fewer are done before a bar could be read.
_MANY: Final = 10


def bar() -> Progress:
    """A progress display; shows nothing off a terminal, and leaves nothing behind."""
    return Progress(console=output.console(on_stderr=True), transient=True, disable=not sys.stderr.isatty())


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
        console=output.console(on_stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        speed_estimate_period=120.0,  # a budget may allow a few requests a minute
    )


def tracked(items: Sequence[Item], doing: str) -> Iterator[Item]:
    """The items, with a progress bar while many are worked on."""
    is_shown = sys.stderr.isatty() and len(items) >= _MANY
    yield from track(items, doing, console=output.console(on_stderr=True), transient=True, disable=not is_shown)
