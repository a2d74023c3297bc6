"""Stable Genius: USDC payment intents over `/stable-genius/v1`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from sandbox.provider import Stage, magic_code
from sandbox.stable_genius.account import Account
from sandbox.stable_genius.errors import ERRORS, refuse
from sandbox.stable_genius.events import Events
from sandbox.stable_genius.lists import listed
from sandbox.times import iso, now
from sandbox.web import Call, Handler, Reply, json_reply
from sandbox.world import Lifecycle, Resource

INTENT = Lifecycle(
    initial="awaiting_payment",
    moves={"awaiting_payment": ("confirmed", "expired", "cancelled"), "confirmed": ("settled",)},
    paid=frozenset({"confirmed", "settled"}),
    unpaid_ends=frozenset({"expired", "cancelled"}),
)
FEE_RATE = Decimal("0.01")
TOKEN_CONTRACT = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"  # noqa: S105 - USDC on Base, an address


class StableGenius(Account):
    """Stable Genius as documented; intents belong to their key's environment."""

    name = "stable_genius"
    prefix = "/stable-genius"
    lifecycles: ClassVar[Mapping[str, Lifecycle]] = {"payment_intent": INTENT}
    create_paths: ClassVar[Mapping[str, str]] = {"payment_intent": "/v1/payment-intents"}

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._keys: dict[tuple[bool, str], tuple[datetime, dict[str, Any], Resource]] = {}
        self.events = Events(stage, self)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Intents, the registration that S2 implies, and a log of events of our own."""
        return [
            ("POST", "/v1/payment-intents", self.create),
            ("GET", "/v1/payment-intents", self.list_all),
            ("GET", "/v1/payment-intents/{id}", self.fetch),
            ("POST", "/v1/payment-intents/{id}/cancel", self.cancel),
            ("GET", "/v1/events", self.events.listed),
            ("POST", "/v1/webhooks", self.events.subscribe),
            ("GET", "/qr/{id}", self.events.qr_image),
        ]

    def create(self, call: Call) -> Reply:
        """Create an intent, or return the existing one of the idempotency key.

        That holds for the same parameters.
        """
        is_live = self.authorise(call)
        body = self.read(call)
        metadata = body.get("metadata") or {}
        if isinstance(metadata, dict):
            code = str(metadata.get("sandbox", "")).removeprefix("sandbox:")
            if code in ERRORS:
                raise refuse(code)
        amount, ttl = self._checked(body, metadata)
        key = body.get("idempotency_key")
        if key is not None:
            if not isinstance(key, str) or not key:
                raise refuse("invalid_request", "idempotency_key must be a string", "idempotency_key")
            stored = self._keys.get((is_live, key))
            if stored and stored[0] > now():
                if stored[1] != body:
                    raise refuse("idempotency_key_conflict", param="idempotency_key")
                return json_reply(self._own.replay_status, self.shown(stored[2]))
        resource = self._new(body, metadata, amount, is_live)
        if key is not None:
            kept = timedelta(seconds=self.config.scaled(86_400.0))
            self._keys[is_live, key] = (now() + kept, body, resource)
        self.expires(resource, ttl)
        self.world.add(resource)
        return json_reply(self._own.create_status, self.shown(resource))

    def _checked(self, body: dict[str, Any], metadata: Any) -> tuple[Decimal, int]:
        amount, ttl, merchant = body.get("amount"), body.get("ttl", 300), body.get("merchant_id")
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
            raise refuse("invalid_request", "amount must be a number", "amount")
        amount = Decimal(amount)
        if not amount.is_finite() or not Decimal("0.01") <= amount <= 10_000:
            raise refuse("amount_out_of_range", param="amount")
        if amount != round(amount, 2):
            raise refuse("invalid_request", "amount has more than two decimals", "amount")
        if body.get("currency") != "usd":
            raise refuse("invalid_currency", param="currency")
        if not isinstance(merchant, str) or not merchant.startswith("mer_") or len(merchant) < 5:
            raise refuse("invalid_merchant", param="merchant_id")
        if merchant in self._own.suspended_merchants:
            raise refuse("merchant_not_active", param="merchant_id")
        if merchant not in self._own.merchants:
            raise refuse("merchant_not_found", param="merchant_id")
        if isinstance(ttl, bool) or not isinstance(ttl, int) or not 60 <= ttl <= 3600:
            raise refuse("ttl_out_of_range", param="ttl")
        if (
            not isinstance(metadata, dict)
            or len(metadata) > 10
            or any(not isinstance(value, str) or len(value) > 500 for value in metadata.values())
        ):
            raise refuse("invalid_request", "metadata has at most 10 keys with 500 characters each", "metadata")
        return amount, ttl

    def _new(self, body: dict[str, Any], metadata: dict[str, str], amount: Decimal, is_live: bool) -> Resource:
        reference = metadata.get("reference") or metadata.get("reference_id") or metadata.get("order_id") or ""
        seeded_by = reference or str(body.get("idempotency_key") or "")
        name, at = self.world.name(self.name, "payment_intent", seeded_by), now()
        identifier = "pi_" + self.world.hex(name, 24, "intent")
        return Resource(
            provider=self.name,
            kind="payment_intent",
            ref=identifier,
            provider_id=identifier,
            reference=reference,
            state="awaiting_payment",
            amount_minor=int(amount * 100),
            currency="USD",
            name=name,
            created_at=at,
            updated_at=at,
            is_live=is_live,
            data={
                "amount": amount,
                "merchant_id": body["merchant_id"],
                "metadata": metadata,
                "payment_address": "0x" + self.world.hex(name, 40, "address"),
            },
        )

    def found(self, call: Call, *, is_live: bool) -> Resource:
        """Return the intent of the path; 403 when it is of the other environment."""
        text = call.params["id"]
        code = magic_code(text)
        if code in ERRORS:
            raise refuse(code)
        resource = self.world.find(self.name, "payment_intent", text)
        if resource is None:
            raise refuse("payment_intent_not_found", param="id")
        if resource.is_live != is_live:
            raise refuse("environment_mismatch")
        return resource

    def fetch(self, call: Call) -> Reply:
        """One intent."""
        return json_reply(200, self.shown(self.found(call, is_live=self.authorise(call))))

    def cancel(self, call: Call) -> Reply:
        """Cancel an intent; 409 from any state but awaiting_payment."""
        resource = self.found(call, is_live=self.authorise(call))
        if not self.world.may(resource, "cancelled"):
            raise refuse("intent_not_cancellable")
        self.world.move(resource, "cancelled")
        return json_reply(200, self.shown(resource))

    def list_all(self, call: Call) -> Reply:
        """Intents of one merchant, newest first, in the list envelope."""
        return json_reply(200, listed(self, call, is_live=self.authorise(call)))

    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the payment_intent object, with the chain's facts once confirmed."""
        data, amount = resource.data, resource.data["amount"]
        units = int(amount * 1_000_000)
        value: dict[str, Any] = {
            "id": resource.ref,
            "object": "payment_intent",
            "status": resource.state,
            "amount": float(amount),
            "currency": "usd",
            "merchant_id": data["merchant_id"],
            "payment_address": data["payment_address"],
            "chain": "base",
            "token": "USDC",
            "qr_payload": f"ethereum:{TOKEN_CONTRACT}@{8453 if resource.is_live else 84532}"
            f"/transfer?address={data['payment_address']}&uint256={units}",
            "qr_image_url": f"{self.config.public_url}{self.prefix}/qr/{resource.ref}.png",
            "expires_at": iso(resource.expires_at) if resource.expires_at else None,
            "metadata": data["metadata"],
            "created_at": iso(resource.created_at),
        }
        at = {state: iso(moment) for state, moment in resource.history}
        if "confirmed" in at:
            fee = amount * FEE_RATE
            value |= {
                "net_amount": float(amount - fee),
                "fee": float(fee),
                "fee_rate": float(FEE_RATE),
                "tx_hash": "0x" + self.world.hex(resource.name, 64, "tx"),
                "confirmed_at": at["confirmed"],
                "sender_address": "0x" + self.world.hex(resource.name, 40, "sender"),
                "block_number": 30_000_000 + self.stage.dice.draw("block", resource.name).randrange(10**6),
            }
        return value | {f"{state}_at": at[state] for state in ("expired", "cancelled") if state in at}

    def moved(self, resource: Resource, before: str) -> None:
        """Tell the endpoints."""
        self.events.moved(resource)

    def moves_for(self, resource: Resource, action: str) -> list[str] | None:
        """Return the states for an action; an intent has no failure and no refund."""
        state = {"pay": "confirmed", "cancel": "cancelled", "expire": "expired", "settle": "settled"}.get(action)
        return [state] if state else None

    def act(self, resource: Resource, action: str, options: Mapping[str, Any]) -> None:
        """Do an action, also `settle_fails`, which only sends an event."""
        if action == "settle_fails" and resource.state in {"confirmed", "settled"}:
            self.events.settlement(resource, "failed")
            return
        super().act(resource, action, options)

    def take_late_money(self, resource: Resource) -> None:
        """Leave the intent ended; only `transaction.created` reports the money."""
        self.events.transaction(resource, is_matched=False)

    def register(self, url: str, kind: str, secret: str | None) -> None:
        """Add an endpoint with a signing secret of its own.

        `kind` is `test`, `live` or empty for both.
        """
        self.events.add(url, self._own.signing_secret if secret is None else secret, kind)
