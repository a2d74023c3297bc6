"""Columns of a table: what each is called, and how its cells are shown."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette_admin.fields import BaseField


class Shown(StrEnum):
    """How a cell is shown; templates/tables/cells.html has one macro for each."""

    TEXT = "text"
    ID = "id"
    ACCOUNT = "account"
    PHASE = "phase"
    STATUS = "status"
    BADGE = "badge"
    REVIEW = "review"
    MONEY = "money"  #: with the row's currency
    AGO = "ago"
    BYTES = "bytes"
    NUMBER = "number"
    HASH = "hash"
    PAYMENT = "payment"  #: an id that leads to the payment's page
    SUBJECT = "subject"  #: an id of anything, which a search may find
    LONG = "long"  #: in words, cut where it is too long for a row


@dataclass
class Cell(BaseField):
    """One column. Where it leads to the row's own page, `is_head` says so; a table has one such column."""

    shown: Shown = Shown.TEXT
    is_head: bool = False

    async def serialize_value(self, request: Any, value: Any) -> Any:
        """As it is: templates show it, and the export writes it."""
        return value


def cell(name: str, label: str, shown: Shown = Shown.TEXT, *, is_head: bool = False) -> Cell:
    """A column that nobody may change, and that is sorted by its id alone."""
    made = Cell(name, label=label, read_only=True, orderable=name == "id", searchable=False)
    made.getter = lambda _request, line: line[name]
    made.shown, made.is_head = shown, is_head
    return made
