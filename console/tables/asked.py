"""What a person asked a table for, read from the address of the page; anything else is refused in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.datastructures import QueryParams

from console.errors import InvalidForm
from statemachine.names import is_line
from storage.ids import is_id
from storage.sifting import Place, Wanted

_MAX_NAME_CHARS: Final = 255

#: In place of a value: the column is there, or it is not.
ANY: Final = "any"
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Choice:
    """One filter. Without options it is typed in, and means the whole value."""

    name: str
    label: str
    options: Sequence[str] = ()
    is_open: bool = False  #: other values than the options are there too, such as accounts of before


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page is to show; `given` is what the form said, as it is shown in it again."""

    wanted: Wanted
    after: str | None = None
    q: str = ""
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_narrowed(self) -> bool:
        """Whether anything but everything was asked for."""
        return bool(self.q or self.given)

    def place(self, limit: int, *, is_ascending: bool) -> Place:
        """Where the page begins."""
        return Place(limit, self.after, is_ascending)


def read(query: QueryParams, choices: Sequence[Choice]) -> Asked:
    """What was asked for; raises InvalidForm for what no form of ours sends."""
    given: dict[str, str] = {}
    equal: dict[str, str] = {}
    present: dict[str, bool] = {}
    for choice in choices:
        value = _text(query, choice.name)
        if not value:
            continue
        if choice.options and value not in choice.options and not choice.is_open:
            raise InvalidForm(f"{choice.name} is one of: {', '.join(choice.options)}", param=choice.name)
        given[choice.name] = value
        if value in (ANY, NONE) and value in choice.options:
            present[choice.name] = value == ANY
        else:
            equal[choice.name] = value
    since, until = _instant(query, "since", given), _instant(query, "until", given)
    after = _text(query, "after") or None
    if after is not None and not is_id(after):
        raise InvalidForm("after is the id of a row", param="after")
    return Asked(Wanted(equal, present, since, until), after, _search(query), given)


def _text(query: QueryParams, name: str) -> str:
    return _line(query, name).strip()


def _line(query: QueryParams, name: str) -> str:
    """As it was typed: a blank at its end may be a name's."""
    value = query.get(name, "")
    if not is_line(value, _MAX_NAME_CHARS):
        raise InvalidForm(f"{name} is one line of at most {_MAX_NAME_CHARS} characters", param=name)
    return value


def _search(query: QueryParams) -> str:
    words = _line(query, "q")
    return words if words.strip() else ""


def _instant(query: QueryParams, name: str, given: dict[str, str]) -> datetime | None:
    """A day or a minute as browsers send it, in UTC; `until` a day means its end."""
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
