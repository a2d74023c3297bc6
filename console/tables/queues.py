"""The tables of what waits or came: inbox, outbox and quarantine, and what an operator may do about their rows."""

from collections.abc import Sequence
from typing import Final

from console.parts import Parts
from console.tables.asked import Choice
from console.tables.cells import Shown, cell
from console.tables.view import Many, Table
from statemachine.phases import Effect, Outcome, Source
from storage import outbox, sifting
from storage import search as storage_search
from storage.database import Unit
from storage.sifting import Line
from storage.types import InboxStatus, OutboxStatus

#: What a person or our own poller said may be said anew, and is not replayed.
_NOT_REPLAYED: Final = frozenset({Source.OPERATOR.value, Source.POLLER.value})


class Inbox(Table):
    """Authentic statements, whatever their source, and what was decided about each."""

    key = "inbox"
    display_name = "Inbox"
    about = "Every authentic statement, kept as it came, with what was decided about it."
    hint = "A whole id, a delivery key, or what names its payment"
    detail_template = "tables/message.html"
    shelf = sifting.MESSAGES
    fields = (
        cell("id", "Message", is_head=True),
        cell("received_at", "Received", Shown.AGO),
        cell("account", "Account", Shown.ACCOUNT),
        cell("source", "Source"),
        cell("status", "Status", Shown.STATUS),
        cell("decision", "Decision", Shown.BADGE),
        cell("payment_id", "Payment", Shown.PAYMENT),
        cell("size_bytes", "Size", Shown.BYTES),
        cell("redeliveries", "Again", Shown.NUMBER),
        cell("reason", "Reason", Shown.LONG),
    )

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """By what names them."""
        return storage_search.message_ids(unit, words)

    def filters(self, parts: Parts) -> Sequence[Choice]:
        """By account, status, source and decision."""
        return [
            *super().filters(parts),
            Choice("status", "Status", tuple(InboxStatus)),
            Choice("source", "Source", tuple(Source)),
            Choice("decision", "Decision", tuple(Outcome)),
        ]

    def many(self) -> Many | None:
        """Replay them."""
        return Many("/console/tables/inbox/replay", "Replay", is_replayable)


class Outbox(Table):
    """Effects owed to sinks."""

    key = "outbox"
    display_name = "Outbox"
    about = "What is owed to your systems. Dead means that every attempt failed, and that a person must redrive it."
    hint = "A whole id or webhook-id, or what names its payment"
    when = "owed"
    detail_template = "tables/owed.html"
    shelf = sifting.OWED
    fields = (
        cell("id", "Effect", is_head=True),
        cell("created_at", "Owed", Shown.AGO),
        cell("account", "Account", Shown.ACCOUNT),
        cell("effect", "What"),
        cell("sink", "Sink"),
        cell("status", "Status", Shown.STATUS),
        cell("attempts", "Attempts", Shown.NUMBER),
        cell("payment_id", "Payment", Shown.PAYMENT),
        cell("delivered_at", "Delivered", Shown.AGO),
        cell("last_error", "Last error", Shown.LONG),
    )

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """By what names them."""
        return storage_search.owed_ids(unit, words)

    def filters(self, parts: Parts) -> Sequence[Choice]:
        """By account, status, sink and effect."""
        return [
            *super().filters(parts),
            Choice("status", "Status", tuple(OutboxStatus)),
            Choice("effect", "What", tuple(Effect)),
            Choice("sink", "Sink"),
        ]

    def many(self) -> Many | None:
        """Redrive the dead ones."""
        return Many("/console/tables/outbox/redrive", "Redrive", is_dead)

    def row(self, unit: Unit, row_id: str) -> Line | None:
        """With every attempt."""
        found = super().row(unit, row_id)
        return None if found is None else {**found, "tries": outbox.attempts_of(unit, [row_id])}


class Quarantine(Table):
    """Deliveries that were not authentic, kept for a while."""

    key = "quarantine"
    display_name = "Quarantine"
    about = "Deliveries whose signature was missing, wrong or stale. Redeem them once a wrong key was mended."
    detail_template = "tables/rejected.html"
    shelf = sifting.REJECTED
    fields = (
        cell("id", "Delivery", is_head=True),
        cell("received_at", "Received", Shown.AGO),
        cell("account", "Account", Shown.ACCOUNT),
        cell("reason", "Reason", Shown.BADGE),
        cell("client", "From"),
        cell("kind", "Kind"),
        cell("about", "Payment", Shown.PAYMENT),
        cell("size_bytes", "Size", Shown.BYTES),
    )

    def filters(self, parts: Parts) -> Sequence[Choice]:
        """By account and reason."""
        return [*super().filters(parts), Choice("reason", "Reason")]

    def many(self) -> Many | None:
        """Redeem them."""
        return Many("/console/tables/quarantine/redeem", "Redeem", lambda _line: True)


def is_replayable(line: Line) -> bool:
    """Whether the message may be applied once more."""
    return line["source"] not in _NOT_REPLAYED


def is_dead(line: Line) -> bool:
    """Whether the effect may be redriven."""
    return bool(line["status"] == OutboxStatus.DEAD.value)
