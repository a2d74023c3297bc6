"""The tables of what is known and what was done: payments, reconciliations, operators' actions, audit heads."""

from collections.abc import Sequence

from console.parts import Parts
from console.tables.asked import ANY, NONE, Choice
from console.tables.cells import Shown, cell
from console.tables.view import Table
from statemachine.phases import Phase, Review
from storage import search as storage_search
from storage import sifting
from storage.database import Unit
from storage.sifting import Line
from storage.types import ReconciliationStatus


class _OfPayments(Table):
    """A list with a line for each payment, which leads to its page."""

    hint = "Our id, the provider's, or your reference"
    when = "created"
    detail_template = ""

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """By what names them."""
        return storage_search.payment_ids(unit, words)

    def link(self, line: Line) -> str | None:
        """The payment's page."""
        return f"/console/payments/{line['id']}"


class Payments(_OfPayments):
    """Payments, each with where it stands."""

    key = "payments"
    display_name = "Payments"
    about = "Each payment as it is known now; its page tells how that came to be."
    shelf = sifting.PAYMENTS
    fields = (
        cell("id", "Payment", is_head=True),
        cell("created_at", "Created", Shown.AGO),
        cell("account", "Account", Shown.ACCOUNT),
        cell("reference", "Your reference"),
        cell("amount_minor", "Amount", Shown.MONEY),
        cell("phase", "Phase", Shown.PHASE),
        cell("review", "Review", Shown.REVIEW),
        cell("state", "State"),
        cell("changed_at", "Changed", Shown.AGO),
        cell("provider_ref", "At the provider"),
    )

    def filters(self, parts: Parts) -> Sequence[Choice]:
        """By account, kind, phase and review."""
        kinds = sorted({kind for account in parts.accounts.values() for kind in account.lifecycles})
        return [
            *super().filters(parts),
            Choice("kind", "Kind", tuple(kinds)),
            Choice("phase", "Phase", tuple(Phase)),
            Choice("review", "Review", (ANY, NONE, *Review)),
            Choice("state", "State"),
        ]


class Heads(_OfPayments):
    """The last link of each payment's chain: what an auditor writes down, to compare with later."""

    key = "audit"
    display_name = "Audit"
    about = (
        "The hash of each payment's last transition covers its whole history. Kept elsewhere, it proves later that "
        "nothing before it was changed; receipted audit verify recomputes all of them."
    )
    shelf = sifting.HEADS
    fields = (
        cell("id", "Payment", is_head=True),
        cell("account", "Account", Shown.ACCOUNT),
        cell("state", "State"),
        cell("version", "Transitions", Shown.NUMBER),
        cell("changed_at", "Last", Shown.AGO),
        cell("head_hash", "Hash of the last transition", Shown.HASH),
    )


class Reconciliations(Table):
    """Walks through what the providers have."""

    key = "reconciliations"
    display_name = "Reconciliations"
    about = "Walks through what a provider has, and what differed from what was known here."
    when = "begun"
    detail_template = "tables/reconciliation.html"
    shelf = sifting.RECONCILIATIONS
    fields = (
        cell("id", "Reconciliation", is_head=True),
        cell("began_at", "Began", Shown.AGO),
        cell("account", "Account", Shown.ACCOUNT),
        cell("status", "Status", Shown.STATUS),
        cell("stage", "Stage"),
        cell("asked_by", "Asked for by"),
        cell("listed", "Listed", Shown.NUMBER),
        cell("to_ask", "To ask", Shown.NUMBER),
        cell("asked", "Asked", Shown.NUMBER),
        cell("failed", "Unanswered", Shown.NUMBER),
        cell("finished_at", "Finished", Shown.AGO),
        cell("last_error", "Error", Shown.LONG),
    )

    def filters(self, parts: Parts) -> Sequence[Choice]:
        """By account and status."""
        return [*super().filters(parts), Choice("status", "Status", tuple(ReconciliationStatus))]


class Actions(Table):
    """What named people did here, and why."""

    key = "actions"
    display_name = "Actions"
    about = "What named people and keys did here, and why. The database refuses to change or remove it."
    hint = "The whole id of what it was about"
    when = "done"
    detail_template = ""
    shelf = sifting.ACTIONS
    fields = (
        cell("id", "Action", Shown.ID, is_head=True),
        cell("at", "When", Shown.AGO),
        cell("actor", "Who"),
        cell("action", "What", Shown.BADGE),
        cell("account", "Account", Shown.ACCOUNT),
        cell("subject", "About", Shown.SUBJECT),
        cell("reason", "Why", Shown.LONG),
    )

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """By what names them."""
        return storage_search.action_ids(unit, words)

    def filters(self, parts: Parts) -> Sequence[Choice]:
        """By account, who, and what."""
        return [*super().filters(parts), Choice("actor", "Who"), Choice("action", "What")]

    def link(self, line: Line) -> str | None:
        """None: what it was about has a page."""
        return None
