"""Banked: who may call, how its resources live, and what a payer, a bank or the dashboard does to them."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs

from sandbox.banked.errors import refuse, row_of
from sandbox.banked.idempotency import Idempotency
from sandbox.banked.payins import Payins
from sandbox.banked.refunds import Refunds
from sandbox.banked.sessions import Sessions
from sandbox.banked.webhooks import Webhooks
from sandbox.provider import Provider, Stage, magic_code, read_json
from sandbox.times import now
from sandbox.web import Call, Handler, Reply, json_reply
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


class BankedProvider(Provider):
    """One business with one key pair; v2 and v3 side by side."""

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
        self.own = stage.config.banked
        self._tokens: dict[str, datetime] = {}
        self._idempotency = Idempotency(self.config.scaled)
        self.sessions, self.payins = Sessions(self), Payins(self)
        self.refunds, self.webhooks = Refunds(self), Webhooks(stage, self)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Every call of both generations."""
        return [
            ("POST", "/oauth/token", self.token),
            *self.sessions.routes(),
            *self.payins.routes(),
            *self.refunds.routes(),
            *self.webhooks.routes(),
        ]

    def trouble(self, call: Call, status: int) -> Reply:
        """The errors array with the row of this status."""
        codes = {404: "not_found", 405: "method_not_allowed", 429: "rate_limit_exceeded", 502: "bad_gateway"}
        codes |= {503: "service_unavailable", 504: "gateway_timeout"}
        return refuse(call, [(codes.get(status, "internal"), "")]).reply

    async def run(self, handler: Handler, call: Call) -> Reply:
        """Authenticate, honour the idempotency key, then answer."""
        if call.path == "/oauth/token":
            return await super().run(handler, call)
        if not self._is_authentic(call):
            return refuse(call, [("unauthorized", "Authorization")]).reply
        if b'"sandbox slow"' in call.body or b'"sandbox:slow"' in call.body:
            call.slow_seconds = max(call.slow_seconds, 1.0)
        answer = super().run
        return await self._idempotency.run(call, lambda: answer(handler, call))

    def _is_own_pair(self, value: str) -> bool:
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.own.key}:{self.own.secret}".encode())

    def _is_authentic(self, call: Call) -> bool:
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            return self._is_own_pair(value.strip())
        ends_at = self._tokens.get(value.strip())
        return scheme.lower() == "bearer" and ends_at is not None and ends_at > now()

    def token(self, call: Call) -> Reply:
        """Client credentials for a token; 401 for wrong ones, 400 for another grant or scope."""
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or not self._is_own_pair(value.strip()):
            raise refuse(call, [("unauthorized", "Authorization")])
        form = parse_qs(call.body.decode("latin-1"))
        if form.get("grant_type") != ["client_credentials"]:
            raise refuse(call, [("invalid_request", "grant_type")])
        if form.get("scope") != [self.own.application_id]:
            raise refuse(call, [("invalid_business", "scope")])
        text = self.world.hex(self.world.name(self.name, "token", ""), 64, "token")
        seconds = self.config.scaled(self.own.token_seconds)
        self._tokens[text] = now() + timedelta(seconds=seconds)
        value_out = {"access_token": text, "token_type": "Bearer", "expires_in": max(1, int(seconds))}
        return json_reply(200, value_out)

    def read(self, call: Call) -> dict[str, Any]:
        """The JSON object in the body, else `decoding`."""
        return read_json(call, refuse(call, [("decoding", "body")]).reply)

    def provoke(self, call: Call, reference: object) -> None:
        """Raise the row that a magic reference asks for."""
        code = row_of(magic_code(reference))
        if code:
            raise refuse(call, [(code, "reference")])

    def found(self, call: Call, kind: str, missing: str = "not_found") -> Resource:
        """The resource of the path, or the error of the provider."""
        self.provoke(call, call.params["id"])
        resource = self.world.find(self.name, kind, call.params["id"])
        if resource is None or resource.state == "deleted":
            raise refuse(call, [(missing, "id")])
        return resource

    def shown(self, resource: Resource) -> dict[str, Any]:
        """The object as its own calls show it."""
        if resource.kind == "payment_session":
            return self.sessions.shown(resource)
        if resource.kind == "payin":
            return self.payins.shown(resource)
        return self.refunds.shown(resource)

    def moved(self, resource: Resource, before: str) -> None:
        """Tell the webhooks of the version that the resource belongs to."""
        self.webhooks.tell(resource)

    def moves_for(self, resource: Resource, action: str) -> list[str] | None:
        """The rest of the walk for `pay`; the other actions end it, through the bank where they must."""
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
        """Adds `step`, `error` and `resolve` for latest_error, and `refund`, which makes a refund of its own."""
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
        """The payment turns sent although it had ended."""
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
