"""Banked refunds and payouts, as far as following the money needs them."""

from typing import Any

from sandbox.banked.account import Account
from sandbox.banked.checks import is_amount
from sandbox.banked.errors import refuse
from sandbox.banked.lists import listed
from sandbox.banked.webhooks import Webhooks
from sandbox.provider import plain
from sandbox.times import banked_time, now
from sandbox.web import Call, Handler, Reply, json_reply
from sandbox.world import Resource


class Refunds:
    """Refunds of sent payments under both versions, payouts under v2."""

    def __init__(self, owner: Account, webhooks: Webhooks) -> None:
        self._owner, self._webhooks = owner, webhooks

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Create, list and read of both kinds."""
        calls: list[tuple[str, str, Handler]] = []
        for version in ("v2", "v3"):
            calls += [
                ("POST", f"/{version}/refunds", self.create_refund),
                ("GET", f"/{version}/refunds", lambda call: self._listed(call, "refund")),
                ("GET", f"/{version}/refunds/{{id}}", lambda call: self._fetched(call, "refund")),
            ]
        return [
            *calls,
            ("POST", "/v2/payouts", self.create_payout),
            ("GET", "/v2/payouts", lambda call: self._listed(call, "payout")),
            ("GET", "/v2/payouts/{id}", lambda call: self._fetched(call, "payout")),
        ]

    def _fetched(self, call: Call, kind: str) -> Reply:
        return json_reply(200, self.shown(self._owner.found(call, kind)))

    def _listed(self, call: Call, kind: str) -> Reply:
        return json_reply(200, {"data": [self.shown(item) for item in listed(self._owner, call, kind)]})

    def create_refund(self, call: Call) -> Reply:
        """201 with the refund; only of sent money, and in total never more than was sent."""
        owner = self._owner
        body = owner.read(call)
        owner.provoke(call, body.get("reference"))
        identifier = str(body.get("payment_session_id") or body.get("payment_id") or "")
        payment = owner.world.find_by_provider_id(owner.name, identifier)
        if payment is None or payment.kind not in {"payment_session", "payin"}:
            raise refuse(call, [("not_found", "payment_id")])
        if payment.state not in {"sent", "SENT"}:
            raise refuse(call, [("invalid_action", "payment_id")])
        earlier = sum(
            item.amount_minor
            for item in owner.world.all(owner.name, "refund")
            if item.data["payment_id"] == identifier and item.state != "failed"
        )
        amount = body.get("amount", payment.amount_minor - earlier)
        if not is_amount(amount) or earlier + amount > payment.amount_minor:
            raise refuse(call, [("invalid_amount", "amount")])
        return json_reply(201, self.shown(self.make(payment, amount, str(body.get("reference") or ""))))

    def make(self, payment: Resource, amount: int, reference: str) -> Resource:
        """Add a refund of this payment, waiting for the merchant's bank."""
        data = {"payment_id": payment.provider_id}
        return self._made("refund", "awaiting_payment", amount, payment.currency, reference, data)

    def create_payout(self, call: Call) -> Reply:
        """201 with the payout."""
        owner = self._owner
        body = owner.read(call)
        owner.provoke(call, body.get("reference"))
        problems = []
        if not is_amount(body.get("amount")):
            problems.append(("invalid_amount", "amount"))
        if body.get("currency") not in owner.own.currencies:
            problems.append(("invalid_currency", "currency"))
        if not isinstance(body.get("payee"), dict):
            problems.append(("invalid_payee", "payee"))
        if problems:
            raise refuse(call, problems)
        reference = str(body.get("reference") or "")
        data = {"body": plain(body)}
        return json_reply(
            201, self.shown(self._made("payout", "pending", body["amount"], body["currency"], reference, data))
        )

    def _made(
        self, kind: str, state: str, amount: int, currency: str, reference: str, data: dict[str, Any]
    ) -> Resource:
        owner = self._owner
        name, at = owner.world.name(owner.name, kind, reference or str(data.get("payment_id", ""))), now()
        identifier = owner.world.uuid(name)
        resource = Resource(
            provider=owner.name,
            kind=kind,
            ref=identifier,
            provider_id=identifier,
            reference=reference,
            state=state,
            amount_minor=amount,
            currency=currency,
            name=name,
            created_at=at,
            updated_at=at,
            is_live=owner.own.live,
            data=data,
        )
        owner.world.add(resource)
        self._webhooks.tell(resource)
        return resource

    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the refund or payout object."""
        value: dict[str, Any] = {
            "id": resource.ref,
            "amount": resource.amount_minor,
            "amount_formatted": f"{resource.currency} {resource.amount_minor / 100:.2f}",
            "created_at": banked_time(resource.created_at),
            "currency": resource.currency,
            "live": resource.is_live,
            "reference": resource.reference or None,
            "state": resource.state,
        }
        if resource.kind == "refund":
            payment = resource.data["payment_id"]
            found = self._owner.world.find_by_provider_id(self._owner.name, payment)
            is_session = found is not None and found.kind == "payment_session"
            return value | {"payment_id": payment} | ({"payment_session_id": payment} if is_session else {})
        return value | {
            "payee": resource.data["body"].get("payee"),
            "url": self._owner.page_url(resource.provider_id),
            "autopay": False,
            "end_to_end_id": self._owner.world.hex(resource.name, 32, "end_to_end"),
        }
