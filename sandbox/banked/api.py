"""Banked's resources, and the actions of payers, banks and the dashboard."""

from collections.abc import Mapping
from typing import Any, ClassVar

from sandbox.banked.account import Account
from sandbox.banked.payins import Payins
from sandbox.banked.refunds import Refunds
from sandbox.banked.sessions import Sessions
from sandbox.banked.webhooks import Webhooks
from sandbox.provider import Stage
from sandbox.web import Handler
from sandbox.world import IllegalMove, Lifecycle, Resource

SESSION = Lifecycle(
    initial="awaiting_provider",
    moves={
        "awaiting_provider": ("awaiting_payment_consent", "failed", "deleted"),
        "awaiting_payment_consent": ("initiated", "pending", "sent", "failed", "deleted"),
        "initiated": ("pending", "sent", "failed"),
        "pending": ("sent", "failed"),
    },
    paid=frozenset({"sent"}),
    unpaid_ends=frozenset({"failed", "deleted"}),
)
PAYIN = Lifecycle(
    initial="CREATED",
    moves={
        "CREATED": ("AWAITING_AUTHORIZATION", "CANCELED"),
        "AWAITING_AUTHORIZATION": ("INITIATED", "FAILED", "CANCELED"),
        "INITIATED": ("PENDING", "SENT", "FAILED"),
        "PENDING": ("SENT", "FAILED"),
    },
    paid=frozenset({"SENT"}),
    unpaid_ends=frozenset({"FAILED", "CANCELED"}),
)
REFUND = Lifecycle(
    initial="awaiting_payment",
    moves={
        "awaiting_details": ("awaiting_payment", "failed"),
        "awaiting_payment": ("sent", "failed", "externally processed"),
    },
    paid=frozenset({"sent", "externally processed"}),
    unpaid_ends=frozenset(),
)
PAYOUT = Lifecycle(
    initial="pending",
    moves={"pending": ("sent", "failed", "canceled")},
    paid=frozenset({"sent"}),
    unpaid_ends=frozenset(),
)

#: The way to the money, in order; a payer who declines does so at the bank.
WALKS = {
    "payment_session": ("awaiting_provider", "awaiting_payment_consent", "initiated", "pending", "sent"),
    "payin": ("CREATED", "AWAITING_AUTHORIZATION", "INITIATED", "PENDING", "SENT"),
    "refund": ("awaiting_details", "awaiting_payment", "sent"),
    "payout": ("pending", "sent"),
}
FAILED = {"payment_session": "failed", "payin": "FAILED", "refund": "failed", "payout": "failed"}
NOT_YET_AT_THE_BANK = frozenset({"awaiting_provider", "awaiting_payment_consent", "CREATED", "AWAITING_AUTHORIZATION"})
REASONS = {"decline": "BANK_REJECTED", "expire": "PAYMENT_EXPIRED", "cancel": "UNKNOWN"}


class BankedProvider(Account):
    """Both generations of the API, v2 and v3, side by side."""

    name = "banked"
    prefix = "/banked"
    lifecycles: ClassVar[Mapping[str, Lifecycle]] = {
        "payment_session": SESSION,
        "payin": PAYIN,
        "refund": REFUND,
        "payout": PAYOUT,
    }
    create_paths: ClassVar[Mapping[str, str]] = {
        "payment_session": "/v2/payment_sessions",
        "payin": "/v3/payins",
        "refund": "/v2/refunds",
        "payout": "/v2/payouts",
    }
    extra_actions = frozenset({"error", "resolve"})

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.sessions, self.payins, self.webhooks = Sessions(self), Payins(self), Webhooks(stage, self)
        self.refunds = Refunds(self, self.webhooks)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Every call of both generations."""
        return [
            ("POST", "/oauth/token", self.token),
            *self.sessions.routes(),
            *self.payins.routes(),
            *self.refunds.routes(),
            *self.webhooks.routes(),
        ]

    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the object as its own calls show it."""
        if resource.kind == "payment_session":
            return self.sessions.shown(resource)
        if resource.kind == "payin":
            return self.payins.shown(resource)
        return self.refunds.shown(resource)

    def moved(self, resource: Resource, before: str) -> None:
        """Tell the webhooks of the version that the resource belongs to."""
        self.webhooks.tell(resource)

    def moves_for(self, resource: Resource, action: str) -> list[str] | None:
        """Return the remaining states for an action.

        `pay` goes all the way; other actions end it, through the bank where they must.
        """
        walk, kind = WALKS[resource.kind], resource.kind
        is_early = resource.state in NOT_YET_AT_THE_BANK
        if action == "pay":
            return list(walk[walk.index(resource.state) + 1 :]) if resource.state in walk else []
        if action == "decline":
            at_bank = [walk[1]] if kind in {"payment_session", "payin"} and resource.state == walk[0] else []
            return [*at_bank, FAILED[kind]]
        if action == "step":
            return list(walk[walk.index(resource.state) + 1 :][:1]) if resource.state in walk else []
        if kind == "payment_session" and action in {"cancel", "expire"}:
            return ["failed"] if is_early else []
        if kind == "payin" and action in {"cancel", "expire"}:
            return ["CANCELED"] if is_early else []
        return ["canceled"] if kind == "payout" and action == "cancel" else None

    def act(self, resource: Resource, action: str, options: Mapping[str, Any]) -> None:
        """Do an action, also `step`, `error`, `resolve` and `refund`.

        `error` and `resolve` are about latest_error; `refund` makes a refund of its own.
        """
        if action in self.extra_actions:
            self._trouble_shown(resource, action, str(options.get("code") or "PAYER_ACCOUNT_BLOCKED"))
            return
        if action == "refund":
            if resource.state not in {"sent", "SENT"} or resource.kind not in {"payment_session", "payin"}:
                msg = f"{resource.kind} is {resource.state}, so there is nothing to refund"
                raise IllegalMove(msg)
            self.refunds.make(resource, resource.amount_minor, resource.reference)
            return
        state = str(options.get("state", ""))
        reason = REASONS.get(action) or ("BANK_REJECTED" if state in {"failed", "FAILED"} else "")
        moves = [state] if action == "move" else self.moves_for(resource, action) or []
        if reason and moves and self.world.may(resource, moves[0]):
            resource.data["state_reason"] = reason
            resource.data["latest_error"] = {"code": reason, "title": "The payment was not completed"}
        super().act(resource, action, options)

    def _trouble_shown(self, resource: Resource, action: str, code: str) -> None:
        if not self.world.lifecycle(resource).moves.get(resource.state):
            msg = f"{resource.kind} is {resource.state}, so it is no longer processed"
            raise IllegalMove(msg)
        error = {"code": code, "title": "Something went wrong while processing"}
        resource.data["latest_error"] = error if action == "error" else None

    def take_late_money(self, resource: Resource) -> None:
        """Turn the payment sent although it had ended."""
        resource.data |= {"state_reason": None, "latest_error": None}
        self.world.move(resource, WALKS[resource.kind][-1], forced=True)

    def return_url(self, resource: Resource) -> str:
        """success_url or error_url by how it went; for a payin its redirect_url."""
        body = resource.data.get("body", {})
        if resource.kind == "payin":
            return str((body.get("checkout_config") or {}).get("redirect_url") or "")
        url = str(body.get("error_url" if resource.state == "failed" else "success_url") or "")
        return url.replace("__PAYMENT_ID__", resource.ref)

    def register(self, url: str, kind: str, secret: str | None) -> None:
        """Webhooks for every event of one kind of resource, or of all."""
        self.webhooks.register(url, kind, self.own.signature_key if secret is None else secret)
