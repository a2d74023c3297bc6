"""Definitions of the tables: columns, filters, searches and bulk actions."""

from collections.abc import Sequence
from typing import Final

from console.deps import ConsoleDeps
from console.tables.base import BulkAction, CellFormat, ConsoleTable, TableColumn
from console.tables.query_params import ANY, NONE, FilterField
from statemachine.phases import Effect, Outcome, Phase, Review, Source
from storage import outbox
from storage import search as storage_search
from storage.database import Unit
from storage.search import Line
from storage.types import InboxStatus, OutboxStatus, ReconciliationStatus

#: What a person or our own poller said may be said anew, and is not replayed.
_NOT_REPLAYED: Final = frozenset({Source.OPERATOR.value, Source.POLLER.value})


class InboxTable(ConsoleTable):
    """Authentic messages of every source, with the decision about each."""

    key = "inbox"
    title = "Inbox"
    about = "Every authentic statement, kept as it came, with what was decided about it."
    search_hint = "A whole id, a delivery key, or what names its payment"
    detail_template = "tables/message.html"
    shelf = storage_search.MESSAGES
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
        """Return the ids of the rows that the words name."""
        return storage_search.message_ids(unit, words)

    def filter_fields(self, deps: ConsoleDeps) -> Sequence[FilterField]:
        """Filter by account, status, source and decision."""
        return [
            *super().filter_fields(deps),
            FilterField("status", "Status", tuple(InboxStatus)),
            FilterField("source", "Source", tuple(Source)),
            FilterField("decision", "Decision", tuple(Outcome)),
        ]

    def bulk_action(self) -> BulkAction | None:
        """Offer a replay of the chosen messages."""
        return BulkAction("/console/tables/inbox/replay", "Replay", is_replayable)


class OutboxTable(ConsoleTable):
    """Effects owed to sinks."""

    key = "outbox"
    title = "Outbox"
    about = "What is owed to your systems. Dead means that every attempt failed, and that a person must redrive it."
    search_hint = "A whole id or webhook-id, or what names its payment"
    detail_template = "tables/effect.html"
    shelf = storage_search.OWED
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
        """Return the ids of the rows that the words name."""
        return storage_search.outbox_message_ids(unit, words)

    def filter_fields(self, deps: ConsoleDeps) -> Sequence[FilterField]:
        """Filter by account, status, effect and sink."""
        return [
            *super().filter_fields(deps),
            FilterField("status", "Status", tuple(OutboxStatus)),
            FilterField("effect", "What", tuple(Effect)),
            FilterField("sink", "Sink"),
        ]

    def bulk_action(self) -> BulkAction | None:
        """Offer to redrive the chosen dead effects."""
        return BulkAction("/console/tables/outbox/redrive", "Redrive", is_dead)

    def row(self, unit: Unit, row_id: str) -> Line | None:
        """Read the effect with every delivery attempt."""
        found = super().row(unit, row_id)
        return None if found is None else {**found, "tries": outbox.attempts_of(unit, [row_id])}


class QuarantineTable(ConsoleTable):
    """Deliveries that failed verification, kept for a limited time."""

    key = "quarantine"
    title = "Quarantine"
    about = "Deliveries whose signature was missing, wrong or stale. Redeem them once a wrong key was mended."
    detail_template = "tables/rejected_delivery.html"
    shelf = storage_search.REJECTED
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

    def filter_fields(self, deps: ConsoleDeps) -> Sequence[FilterField]:
        """Filter by account and reason."""
        return [*super().filter_fields(deps), FilterField("reason", "Reason")]

    def bulk_action(self) -> BulkAction | None:
        """Offer to redeem the chosen deliveries."""
        return BulkAction("/console/tables/quarantine/redeem", "Redeem", lambda _line: True)


def is_replayable(line: Line) -> bool:
    """Return True if the message may be applied once more."""
    return line["source"] not in _NOT_REPLAYED


def is_dead(line: Line) -> bool:
    """Return True if the effect may be redriven."""
    return bool(line["status"] == OutboxStatus.DEAD.value)


class _OfPayments(ConsoleTable):
    """A table with a row for each payment, linked to its page."""

    search_hint = "Reference, id or its last digits, amount"
    nothing_found = (
        "was looked for as a whole id, a provider's id and a reference of every payment; and among the newest "
        f"{storage_search.SCAN_LIMIT:,} payments as the beginning of a reference or of a provider's id, as the first "
        "or last digits of an id, and as an amount such as 12.50 or 12.50 EUR."
    )

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """Return the ids of the rows that the words name, else of rows by a part."""
        return storage_search.payment_ids(unit, words) or storage_search.payment_ids_by_part(unit, words)

    def link(self, line: Line) -> str | None:
        """Return the address of the payment's page."""
        return f"/console/payments/{line['id']}"


class PaymentsTable(_OfPayments):
    """Payments with their present state."""

    key = "payments"
    title = "Payments"
    about = "Each payment as it is known now; its page tells how that came to be."
    shelf = storage_search.PAYMENTS
    columns = (
        TableColumn("id", "Payment", is_head=True),
        TableColumn("created_at", "Created", CellFormat.AGO),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("reference", "Your reference"),
        TableColumn("amount_minor", "Amount", CellFormat.MONEY),
        TableColumn("phase", "Phase", CellFormat.PHASE),
        TableColumn("review", "Review", CellFormat.REVIEW),
        TableColumn("state", "State"),
        TableColumn("changed_at", "Changed", CellFormat.AGO),
        TableColumn("provider_ref", "At the provider"),
    )

    def filter_fields(self, deps: ConsoleDeps) -> Sequence[FilterField]:
        """Filter by account, kind, phase, review and state."""
        kinds = sorted({kind for account in deps.accounts.values() for kind in account.lifecycles})
        return [
            *super().filter_fields(deps),
            FilterField("kind", "Kind", tuple(kinds)),
            FilterField("phase", "Phase", tuple(Phase)),
            FilterField("review", "Review", (ANY, NONE, *Review)),
            FilterField("state", "State"),
        ]


class AuditHeadsTable(_OfPayments):
    """Heads of the payments' hash chains, which an auditor keeps for comparison."""

    key = "audit"
    title = "Audit"
    about = (
        "The hash of each payment's last transition covers its whole history. Kept elsewhere, it proves later that "
        "nothing before it was changed; receipted audit verify recomputes all of them."
    )
    shelf = storage_search.HEADS
    columns = (
        TableColumn("id", "Payment", is_head=True),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("state", "State"),
        TableColumn("version", "Transitions", CellFormat.NUMBER),
        TableColumn("changed_at", "Last", CellFormat.AGO),
        TableColumn("head_hash", "Hash of the last transition", CellFormat.HASH),
    )


class ReconciliationsTable(ConsoleTable):
    """Reconciliations with the providers."""

    key = "reconciliations"
    title = "Reconciliations"
    about = "Walks through what a provider has, and what differed from what was known here."
    detail_template = "tables/reconciliation.html"
    shelf = storage_search.RECONCILIATIONS
    columns = (
        TableColumn("id", "Reconciliation", is_head=True),
        TableColumn("began_at", "Began", CellFormat.AGO),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("status", "Status", CellFormat.STATUS),
        TableColumn("stage", "Stage"),
        TableColumn("asked_by", "Asked for by"),
        TableColumn("listed", "Listed", CellFormat.NUMBER),
        TableColumn("to_ask", "To ask", CellFormat.NUMBER),
        TableColumn("asked", "Asked", CellFormat.NUMBER),
        TableColumn("failed", "Unanswered", CellFormat.NUMBER),
        TableColumn("finished_at", "Finished", CellFormat.AGO),
        TableColumn("last_error", "Error", CellFormat.LONG),
    )

    def filter_fields(self, deps: ConsoleDeps) -> Sequence[FilterField]:
        """Filter by account and status."""
        return [*super().filter_fields(deps), FilterField("status", "Status", tuple(ReconciliationStatus))]


class ActionsTable(ConsoleTable):
    """Actions of named people and keys, with their reasons."""

    key = "actions"
    title = "Actions"
    about = "What named people and keys did here, and why. The database refuses to change or remove it."
    search_hint = "The whole id of what it was about"
    shelf = storage_search.ACTIONS
    columns = (
        TableColumn("id", "Action", CellFormat.ID, is_head=True),
        TableColumn("at", "When", CellFormat.AGO),
        TableColumn("actor", "Who"),
        TableColumn("action", "What", CellFormat.BADGE),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("subject", "About", CellFormat.SUBJECT),
        TableColumn("reason", "Why", CellFormat.LONG),
    )

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """Return the ids of the rows that the words name."""
        return storage_search.action_ids(unit, words)

    def filter_fields(self, deps: ConsoleDeps) -> Sequence[FilterField]:
        """Filter by account, actor and action."""
        return [*super().filter_fields(deps), FilterField("actor", "Who"), FilterField("action", "What")]

    def link(self, line: Line) -> str | None:
        """Return None: the subject of an action has a page, the action none."""
        return None
