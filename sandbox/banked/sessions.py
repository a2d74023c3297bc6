"""Banked v2 payment sessions, with creates that half succeed."""

from datetime import timedelta
from typing import Any

from sandbox.banked.account import Account
from sandbox.banked.checks import SessionChecks, total
from sandbox.banked.errors import refuse
from sandbox.banked.lists import listed
from sandbox.provider import magic_code, plain
from sandbox.times import banked_time, now, parsed
from sandbox.web import Call, Handler, Reply, json_reply
from sandbox.world import Resource

KIND = "payment_session"


class Sessions:
    """The v2 calls of a payment session."""

    def __init__(self, owner: Account) -> None:
        self._owner = owner
        self._checks = SessionChecks(owner.own, owner.is_acceptable)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Create, list, read, delete, and the bank list."""
        return [
            ("POST", "/v2/payment_sessions", self.create),
            ("GET", "/v2/payment_sessions", self.list_all),
            ("GET", "/v2/payment_sessions/{id}", self.fetch),
            ("DELETE", "/v2/payment_sessions/{id}", self.delete),
            ("GET", "/v2/providers", self.providers),
            ("GET", "/v2/bank_accounts", self.bank_accounts),
        ]

    def create(self, call: Call) -> Reply:
        """Create a session (201).

        With a failing action, `errors`, and the session's id in `successes`.
        """
        owner = self._owner
        body = owner.read(call)
        code = magic_code(body.get("reference"))
        owner.provoke(call, body.get("reference"))
        problems = self._checks.problems(body | {"reference": None} if code else body)
        if problems:
            raise refuse(call, problems)
        amount, currency = total(body)
        reference = str(body.get("reference") or "")
        name, at = owner.world.name(owner.name, KIND, reference), now()
        identifier = owner.world.uuid(name)
        resource = Resource(
            provider=owner.name,
            kind=KIND,
            ref=identifier,
            provider_id=identifier,
            reference=reference,
            state="awaiting_provider",
            amount_minor=amount,
            currency=currency,
            name=name,
            created_at=at,
            updated_at=at,
            is_live=owner.own.live,
            data={
                "body": plain(body),
                "end_to_end_id": owner.world.hex(name, 32, "end_to_end"),
                "payee_name": (body.get("payee") or {}).get("name"),
            },
        )
        ends_at = parsed(body["expiration"]) if body.get("expiration") else None
        left = (ends_at - at) / timedelta(seconds=1) if ends_at else owner.own.ttl_seconds
        owner.expires(resource, left)
        owner.world.add(resource)
        failed = self._failed_actions(body.get("actions") or [], is_provoked=code == "partial")
        if failed:
            done = {
                "resource_type": "payment",
                "resource_id": identifier,
                "message": "payment_session successfully created",
            }
            raise refuse(call, failed, successes=[done], status=422)
        return json_reply(201, self.shown(resource))

    def _failed_actions(self, actions: list[Any], *, is_provoked: bool) -> list[tuple[str, str]]:
        problems = [("invalid_action", "actions")] if is_provoked else []
        for number, action in enumerate(actions):
            if not isinstance(action, dict) or action.get("action_type") != "create_mandate_attempt":
                problems.append(("invalid_action", f"actions.{number}.action_type"))
            elif action.get("mandate_id") not in self._owner.own.mandates:
                problems.append(("not_found", f"actions.{number}.mandate_id"))
        return problems

    def fetch(self, call: Call) -> Reply:
        """One session."""
        return json_reply(200, self.shown(self._owner.found(call, KIND, "session_not_found")))

    def list_all(self, call: Call) -> Reply:
        """List the newest sessions, as a bare list; the provider shows no answer."""
        return json_reply(200, [self.shown(item) for item in listed(self._owner, call, KIND)])

    def delete(self, call: Call) -> Reply:
        """Delete a session (204), before the payer is at the bank; else `invalid_action`.

        What remains is configured.
        """
        owner = self._owner
        resource = owner.found(call, KIND, "session_not_found")
        if not owner.moves_for(resource, "cancel"):
            raise refuse(call, [("invalid_action", "id")])
        if owner.own.delete_result == "removed":
            owner.act(resource, "move", {"state": "deleted"})
        else:
            owner.act(resource, "cancel", {})
        return Reply(204)

    def providers(self, call: Call) -> Reply:
        """Two banks to choose from."""
        rows = [{"id": f"mock-bank-{number}", "name": f"Mock Bank {number}"} for number in (1, 2)]
        return json_reply(200, rows)

    def bank_accounts(self, call: Call) -> Reply:
        """List the accounts that money may be paid into."""
        return json_reply(200, [{"id": each, "status": "active"} for each in self._owner.own.bank_accounts])

    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the session object.

        latest_error is present from the first error on, and may be null again.
        """
        body, data = resource.data["body"], resource.data
        sent_at = next((at for state, at in resource.history if state == "sent"), None)
        value: dict[str, Any] = {
            "id": resource.ref,
            "amount": resource.amount_minor,
            "amount_formatted": f"{resource.currency} {resource.amount_minor / 100:.2f}",
            "currency": resource.currency,
            "created_at": banked_time(resource.created_at),
            "state": resource.state,
            "reference": resource.reference or None,
            "end_to_end_id": data["end_to_end_id"],
            "line_items": body.get("line_items") or [],
            "payee": body.get("payee"),
            "payer": body.get("payer"),
            "live": resource.is_live,
            "sent_at": banked_time(sent_at) if sent_at else None,
            "success_url": body.get("success_url"),
            "error_url": body.get("error_url"),
            "url": self._owner.page_url(resource.provider_id),
            "email_receipt": body.get("email_receipt", False),
        }
        if "latest_error" in data:
            value["latest_error"] = data["latest_error"]
        if resource.state == "failed":
            value["state_reason"] = data.get("state_reason") or "UNKNOWN"
        return value
