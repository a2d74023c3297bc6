"""Query parameters of the tables; those that the console never sends are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.datastructures import QueryParams

from console.errors import InvalidForm
from service.text import shown
from statemachine.names import is_line
from storage.ids import is_id
from storage.search import PageCursor, RowFilter

#: Rows of one page, and what a person may choose instead.
PAGE_SIZE: Final = 50
PAGE_SIZES: Final = (50, 100, 25)

_MAX_VALUE_CHARS: Final = 255

#: Parameters of every table beside its filters.
_COMMON: Final = frozenset({"q", "since", "until", "after", "sort", "page_size"})

#: Orders by time, and whether the oldest row is first.
_SORTS: Final = {"": False, "id__desc": False, "id__asc": True}

#: In place of a value: the column has one, or has none.
ANY: Final = "any"
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class FilterField:
    """One filter: a choice of options, or without them a field for the whole value."""

    name: str
    label: str
    options: Sequence[str] = ()
    is_open: bool = False  #: values that are no options are taken too, such as accounts of earlier settings


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Filters, search and position of one page.

    `given` is what the form sent, to be shown in it again.
    """

    wanted: RowFilter
    after: str | None = None
    q: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    is_ascending: bool = False
    page_size: int = PAGE_SIZE

    @property
    def is_narrowed(self) -> bool:
        """True where a search or a filter is given."""
        return bool(self.q or self.given)

    def place(self) -> PageCursor:
        """Return where the page begins."""
        return PageCursor(self.page_size, self.after, is_ascending=self.is_ascending)


def parse(query: QueryParams, filters: Sequence[FilterField]) -> ListQuery:
    """Parse the parameters; raises InvalidForm for one that the console never sends."""
    unknown = set(query) - _COMMON - {each.name for each in filters}
    if unknown:
        name = min(unknown)
        raise InvalidForm(f"this table has no filter of that name: {shown(name[:_MAX_VALUE_CHARS])}", param="filter")
    given: dict[str, str] = {}
    equal: dict[str, str] = {}
    present: dict[str, bool] = {}
    for each in filters:
        value = _text(query, each.name)
        if not value:
            continue
        if each.options and value not in each.options and not each.is_open:
            raise InvalidForm(f"{each.name} is one of: {', '.join(each.options)}", param=each.name)
        given[each.name] = value
        if value in (ANY, NONE) and value in each.options:
            present[each.name] = value == ANY
        else:
            equal[each.name] = value
    since, until = _instant(query, "since", given), _instant(query, "until", given)
    after = _text(query, "after") or None
    if after is not None and not is_id(after):
        raise InvalidForm("after is the id of a row", param="after")
    wanted = RowFilter(equal, present, since, until)
    return ListQuery(wanted, after, _search(query), given, _is_ascending(query), _page_size(query))


def _is_ascending(query: QueryParams) -> bool:
    value = query.get("sort", "")
    if value not in _SORTS:
        raise InvalidForm("sort is id__desc or id__asc", param="sort")
    return _SORTS[value]


def _page_size(query: QueryParams) -> int:
    value = query.get("page_size", "")
    if not value:
        return PAGE_SIZE
    if value not in map(str, PAGE_SIZES):
        raise InvalidForm(f"rows of a page are one of: {', '.join(map(str, sorted(PAGE_SIZES)))}", param="page_size")
    return int(value)


def _text(query: QueryParams, name: str) -> str:
    return _line(query, name).strip()


def _line(query: QueryParams, name: str) -> str:
    """Return the value as typed: a blank at its end may be part of a name."""
    value = query.get(name, "")
    if not is_line(value, _MAX_VALUE_CHARS):
        raise InvalidForm(f"{name} is one line of at most {_MAX_VALUE_CHARS} characters", param=name)
    return value


def _search(query: QueryParams) -> str:
    words = _line(query, "q")
    return words if words.strip() else ""


def _instant(query: QueryParams, name: str, given: dict[str, str]) -> datetime | None:
    """Parse a day or a minute in UTC as browsers send it; `until` a day is its end."""
    value = _text(query, name)
    if not value:
        return None
    try:
        found = datetime.fromisoformat(value)
        is_day = len(value) == len("2026-11-21")
        at = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        at += timedelta(days=1) if is_day and name == "until" else timedelta(0)
        at.timestamp()
    except (ValueError, OverflowError):
        raise InvalidForm(f"{name} is a time such as 2026-11-21T09:30, in UTC", param=name) from None
    if not 1970 <= at.year <= 9998:
        raise InvalidForm(f"{name} is between the years 1970 and 9998", param=name)
    given[name] = value
    return at
