"""Pages of a list by cursor, as the providers cut them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class UnknownCursor(Exception):
    """The cursor names nothing that this list ever had."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One page, and whether the list goes on at either side of it."""

    rows: list[Any]
    has_next: bool
    has_previous: bool


def cut(
    rows: Sequence[tuple[str, Any]],
    is_wanted: Callable[[Any], bool],
    limit: int,
    *,
    after: str | None = None,
    before: str | None = None,
) -> Cut:
    """Return the first `limit` wanted rows after a cursor, or the last before it.

    Raises UnknownCursor for a cursor that is neither.

    `rows` are all of them with their cursors, in the list's order: a cursor keeps its place when its row is no longer
    wanted, such as after a move. Of two cursors, `after` counts.
    """
    places = {cursor: place for place, (cursor, _) in enumerate(rows)}
    for cursor in (after, before):
        if cursor is not None and cursor not in places:
            raise UnknownCursor(cursor)
    wanted = [(place, row) for place, (_, row) in enumerate(rows) if is_wanted(row)]
    start, end = 0, min(limit, len(wanted))
    if after is not None:
        start = sum(place <= places[after] for place, _ in wanted)
        end = min(start + limit, len(wanted))
    elif before is not None:
        end = sum(place < places[before] for place, _ in wanted)
        start = max(0, end - limit)
    return Cut([row for _, row in wanted[start:end]], end < len(wanted), start > 0)
