"""Progress of long work, on stderr and only where that is a terminal."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from rich.progress import Progress, track

from receipted.cli import output

Item = TypeVar("Item")

#: Fewer are done before a bar could be read.
_MANY: Final = 10


def bar() -> Progress:
    """A progress display; shows nothing off a terminal, and leaves nothing behind."""
    return Progress(console=output.console(on_stderr=True), transient=True, disable=not sys.stderr.isatty())


def tracked(items: Sequence[Item], doing: str) -> Iterator[Item]:
    """The items, with a progress bar while many are worked on."""
    is_shown = sys.stderr.isatty() and len(items) >= _MANY
    yield from track(items, doing, console=output.console(on_stderr=True), transient=True, disable=not is_shown)
