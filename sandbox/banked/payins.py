"""Banked v3 payins: create, read, list; only the control cancels.

No cancel call is known.
"""

from typing import Any

from sandbox.banked.account import Account
from sandbox.banked.checks import is_amount
from sandbox.banked.errors import refuse
from sandbox.banked.lists import listed
from sandbox.provider import plain
from sandbox.times import iso, now
from sandbox.web import Call, Handler, Reply, json_reply
from sandbox.world import Resource

KIND = "payin"


class Payins:
    """The v3 calls of a payin."""

    def __init__(self, owner: Account) -> None:
        self._owner = owner

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Create, list, read."""
        return [
            ("POST", "/v3/payins", self.create),
            ("GET", "/v3/payins", self.list_all),
            ("GET", "/v3/payins/{id}", self.fetch),
        ]

    def create(self, call: Call) -> Reply:
        """201 with the payin and its checkout URL."""
        owner = self._owner
        body = owner.read(call)
        parts = {
            name: body.get(name) or {}
            for name in ("payment_identification", "checkout_config", "ultimate_creditor", "remittance_information")
        }
        wrong = [("invalid_request", name) for name, value in parts.items() if not isinstance(value, dict)]
        if wrong:
            raise refuse(call, wrong)
        reference = str(parts["payment_identification"].get("end_to_end_identification") or "")
        owner.provoke(call, reference)
        self._check(call, body, parts["checkout_config"].get("redirect_url"))
        name, at = owner.world.name(owner.name, KIND, reference), now()
        identifier = owner.world.uuid(name)
        resource = Resource(
            provider=owner.name,
            kind=KIND,
            ref=identifier,
            provider_id=identifier,
            reference=reference,
            state="CREATED",
            amount_minor=body["amount"],
            currency=body["currency"],
            name=name,
            created_at=at,
            updated_at=at,
            is_live=owner.own.live,
            data={"body": plain(body), "payee_name": parts["ultimate_creditor"].get("name")},
        )
        owner.expires(resource, owner.own.ttl_seconds)
        owner.world.add(resource)
        return json_reply(201, self.shown(resource))

    def _check(self, call: Call, body: dict[str, Any], redirect_url: object) -> None:
        own, problems = self._owner.own, []
        if not is_amount(body.get("amount")):
            problems.append(("invalid_amount", "amount"))
        if body.get("currency") not in own.currencies:
            problems.append(("invalid_currency", "currency"))
        if redirect_url is not None and not self._owner.is_acceptable(redirect_url):
            problems.append(("invalid_request", "checkout_config.redirect_url"))
        if body.get("bank_account_id") is not None and body["bank_account_id"] not in own.bank_accounts:
            problems.append(("invalid_bank_account", "bank_account_id"))
        if problems:
            raise refuse(call, problems)

    def fetch(self, call: Call) -> Reply:
        """One payin."""
        return json_reply(200, self.shown(self._owner.found(call, KIND)))

    def list_all(self, call: Call) -> Reply:
        """List the newest payins, in an object; the provider shows no answer."""
        return json_reply(200, {"data": [self.shown(item) for item in listed(self._owner, call, KIND)]})

    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the payin object."""
        body, data = resource.data["body"], resource.data
        value: dict[str, Any] = {
            "id": resource.ref,
            "amount": resource.amount_minor,
            "currency": resource.currency,
            "live": resource.is_live,
            "created_at": iso(resource.created_at),
            "updated_at": iso(resource.updated_at),
            "status_details": {"status": resource.state, "reason": data.get("state_reason")},
            "latest_error": data.get("latest_error"),
            "checkout_url": self._owner.page_url(resource.provider_id),
            "payment_identification": {"end_to_end_identification": resource.reference or None},
        }
        names = ("checkout_config", "ultimate_creditor", "remittance_information", "bank_account_id")
        return value | {name: body[name] for name in names if name in body}
