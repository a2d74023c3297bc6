"""Columns of a table: the label of each, and the format of its cells."""

from dataclasses import dataclass
from enum import StrEnum


class CellFormat(StrEnum):
    """Format of a cell; templates/tables/cells.html has one branch for each."""

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
    PAYMENT = "payment"  #: the id of a payment, linked to its page
    SUBJECT = "subject"  #: the id of what an action was about, linked where the action tells its page
    LONG = "long"  #: text, cut where it is too long for a row


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table."""

    name: str
    label: str
    format: CellFormat = CellFormat.TEXT
    is_head: bool = False  #: it links to the row's own page; a table has one such column
