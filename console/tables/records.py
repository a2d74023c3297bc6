"""The tables of what is known and what was done: payments, reconciliations, operators' actions, audit heads."""

from collections.abc import Sequence

from console.parts import Parts
from console.tables.asked import ANY, NONE, FilterField
from console.tables.cells import CellFormat, TableColumn
from console.tables.view import ConsoleTable
from statemachine.phases import Phase, Review
from storage import search as storage_search
from storage import sifting
from storage.database import Unit
from storage.sifting import Line
from storage.types import ReconciliationStatus


class _OfPayments(ConsoleTable):
    """A list with a line for each payment, which leads to its page."""

    search_hint = "Our id, the provider's, or your reference"

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """By what names them."""
        return storage_search.payment_ids(unit, words)

    def link(self, line: Line) -> str | None:
        """The payment's page."""
        return f"/console/payments/{line['id']}"


class Payments(_OfPayments):
    """Payments, each with where it stands."""

    key = "payments"
    title = "Payments"
    about = "Each payment as it is known now; its page tells how that came to be."
    shelf = sifting.PAYMENTS
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

    def filter_fields(self, parts: Parts) -> Sequence[FilterField]:
        """By account, kind, phase and review."""
        kinds = sorted({kind for account in parts.accounts.values() for kind in account.lifecycles})
        return [
            *super().filter_fields(parts),
            FilterField("kind", "Kind", tuple(kinds)),
            FilterField("phase", "Phase", tuple(Phase)),
            FilterField("review", "Review", (ANY, NONE, *Review)),
            FilterField("state", "State"),
        ]


class Heads(_OfPayments):
    """The last link of each payment's chain: what an auditor writes down, to compare with later."""

    key = "audit"
    title = "Audit"
    about = (
        "The hash of each payment's last transition covers its whole history. Kept elsewhere, it proves later that "
        "nothing before it was changed; receipted audit verify recomputes all of them."
    )
    shelf = sifting.HEADS
    columns = (
        TableColumn("id", "Payment", is_head=True),
        TableColumn("account", "Account", CellFormat.ACCOUNT),
        TableColumn("state", "State"),
        TableColumn("version", "Transitions", CellFormat.NUMBER),
        TableColumn("changed_at", "Last", CellFormat.AGO),
        TableColumn("head_hash", "Hash of the last transition", CellFormat.HASH),
    )


class Reconciliations(ConsoleTable):
    """Walks through what the providers have."""

    key = "reconciliations"
    title = "Reconciliations"
    about = "Walks through what a provider has, and what differed from what was known here."
    detail_template = "tables/reconciliation.html"
    shelf = sifting.RECONCILIATIONS
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

    def filter_fields(self, parts: Parts) -> Sequence[FilterField]:
        """By account and status."""
        return [*super().filter_fields(parts), FilterField("status", "Status", tuple(ReconciliationStatus))]


class Actions(ConsoleTable):
    """What named people did here, and why."""

    key = "actions"
    title = "Actions"
    about = "What named people and keys did here, and why. The database refuses to change or remove it."
    search_hint = "The whole id of what it was about"
    shelf = sifting.ACTIONS
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
        """By what names them."""
        return storage_search.action_ids(unit, words)

    def filter_fields(self, parts: Parts) -> Sequence[FilterField]:
        """By account, who, and what."""
        return [*super().filter_fields(parts), FilterField("actor", "Who"), FilterField("action", "What")]

    def link(self, line: Line) -> str | None:
        """None: what it was about has a page."""
        return None
