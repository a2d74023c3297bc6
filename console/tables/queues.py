"""The tables of what waits or came: inbox, outbox and quarantine, and what an operator may do about their rows."""

from collections.abc import Sequence
from typing import Final

from console.parts import Parts
from console.tables.asked import FilterField
from console.tables.cells import CellFormat, TableColumn
from console.tables.view import BulkAction, ConsoleTable
from statemachine.phases import Effect, Outcome, Source
from storage import outbox, sifting
from storage import search as storage_search
from storage.database import Unit
from storage.sifting import Line
from storage.types import InboxStatus, OutboxStatus

#: What a person or our own poller said may be said anew, and is not replayed.
_NOT_REPLAYED: Final = frozenset({Source.OPERATOR.value, Source.POLLER.value})


class Inbox(ConsoleTable):
    """Authentic statements, whatever their source, and what was decided about each."""

    key = "inbox"
    title = "Inbox"
    about = "Every authentic statement, kept as it came, with what was decided about it."
    search_hint = "A whole id, a delivery key, or what names its payment"
    detail_template = "tables/message.html"
    shelf = sifting.MESSAGES
    columns = (
        TableColumn("id", "Message", is_head=True),
        TableColumn("received_at", "Received", CellFormat.AGO),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("source", "Source"),
        TableColumn("status", "Status", CellFormat.STATUS),
        TableColumn("decision", "Decision", CellFormat.BADGE),
        TableColumn("payment_id", "Payment", CellFormat.PAYMENT),
        TableColumn("size_bytes", "Size", CellFormat.BYTES),
        TableColumn("redeliveries", "Again", CellFormat.NUMBER),
        TableColumn("reason", "Reason", CellFormat.LONG),
    )

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """By what names them."""
        return storage_search.message_ids(unit, words)

    def filter_fields(self, parts: Parts) -> Sequence[FilterField]:
        """By account, status, source and decision."""
        return [
            *super().filter_fields(parts),
            FilterField("status", "Status", tuple(InboxStatus)),
            FilterField("source", "Source", tuple(Source)),
            FilterField("decision", "Decision", tuple(Outcome)),
        ]

    def bulk_action(self) -> BulkAction | None:
        """Replay them."""
        return BulkAction("/console/tables/inbox/replay", "Replay", is_replayable)


class Outbox(ConsoleTable):
    """Effects owed to sinks."""

    key = "outbox"
    title = "Outbox"
    about = "What is owed to your systems. Dead means that every attempt failed, and that a person must redrive it."
    search_hint = "A whole id or webhook-id, or what names its payment"
    detail_template = "tables/owed.html"
    shelf = sifting.OWED
    columns = (
        TableColumn("id", "Effect", is_head=True),
        TableColumn("created_at", "Owed", CellFormat.AGO),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("effect", "What"),
        TableColumn("sink", "Sink"),
        TableColumn("status", "Status", CellFormat.STATUS),
        TableColumn("attempts", "Attempts", CellFormat.NUMBER),
        TableColumn("payment_id", "Payment", CellFormat.PAYMENT),
        TableColumn("delivered_at", "Delivered", CellFormat.AGO),
        TableColumn("last_error", "Last error", CellFormat.LONG),
    )

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """By what names them."""
        return storage_search.owed_ids(unit, words)

    def filter_fields(self, parts: Parts) -> Sequence[FilterField]:
        """By account, status, sink and effect."""
        return [
            *super().filter_fields(parts),
            FilterField("status", "Status", tuple(OutboxStatus)),
            FilterField("effect", "What", tuple(Effect)),
            FilterField("sink", "Sink"),
        ]

    def bulk_action(self) -> BulkAction | None:
        """Redrive the dead ones."""
        return BulkAction("/console/tables/outbox/redrive", "Redrive", is_dead)

    def row(self, unit: Unit, row_id: str) -> Line | None:
        """With every attempt."""
        found = super().row(unit, row_id)
        return None if found is None else {**found, "tries": outbox.attempts_of(unit, [row_id])}


class Quarantine(ConsoleTable):
    """Deliveries that were not authentic, kept for a while."""

    key = "quarantine"
    title = "Quarantine"
    about = "Deliveries whose signature was missing, wrong or stale. Redeem them once a wrong key was mended."
    detail_template = "tables/rejected.html"
    shelf = sifting.REJECTED
    columns = (
        TableColumn("id", "Delivery", is_head=True),
        TableColumn("received_at", "Received", CellFormat.AGO),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("reason", "Reason", CellFormat.BADGE),
        TableColumn("client", "From"),
        TableColumn("kind", "Kind"),
        TableColumn("about", "Payment", CellFormat.PAYMENT),
        TableColumn("size_bytes", "Size", CellFormat.BYTES),
    )

    def filter_fields(self, parts: Parts) -> Sequence[FilterField]:
        """By account and reason."""
        return [*super().filter_fields(parts), FilterField("reason", "Reason")]

    def bulk_action(self) -> BulkAction | None:
        """Redeem them."""
        return BulkAction("/console/tables/quarantine/redeem", "Redeem", lambda _line: True)


def is_replayable(line: Line) -> bool:
    """Whether the message may be applied once more."""
    return line["source"] not in _NOT_REPLAYED


def is_dead(line: Line) -> bool:
    """Whether the effect may be redriven."""
    return bool(line["status"] == OutboxStatus.DEAD.value)
