"""Payfield payins and payouts in two dialects.

They are under `/payfield/api/v1` and `/payfield-old/api/v1`.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

from sandbox.config import PayfieldShop
from sandbox.deliver import Message, Policy
from sandbox.payfield.requests import ERRORS, Requests
from sandbox.provider import Provider, Stage, magic_code, plain
from sandbox.signing import payfield
from sandbox.times import iso, now
from sandbox.web import Call, Handler, Reply, json_reply, to_json
from sandbox.world import Lifecycle, Resource

OPERATION = Lifecycle(
    initial="pending",
    moves={"pending": ("success", "failed", "canceled", "expired"), "success": ("refunded",)},
    paid=frozenset({"success", "refunded"}),
    unpaid_ends=frozenset({"failed", "canceled", "expired"}),
)

#: One attempt and five retries, which uses every delay that the provider documents.
POLICY = Policy(delays=(60.0, 300.0, 1800.0, 3600.0, 7200.0))


class Payfield(Provider):
    """NEW dialect: decimal strings, errors with codes, empty fields left out."""

    name = "payfield"
    prefix = "/payfield"
    lifecycles: ClassVar[Mapping[str, Lifecycle]] = {"payin": OPERATION, "payout": OPERATION}
    create_paths: ClassVar[Mapping[str, str]] = {"payin": "/api/v1/payins", "payout": "/api/v1/payouts"}

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._shop = self.shop_of(stage)
        self._is_new = self._shop.dialect == "new"
        self._requests = Requests(self._shop, self.is_acceptable)
        self._webhooks: dict[str, tuple[str, str]] = {}

    def shop_of(self, stage: Stage) -> PayfieldShop:
        """Return the shop that this dialect serves."""
        return stage.config.payfield

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Create and read; the provider has no list and no cancel."""
        return [
            ("POST", "/api/v1/payins", lambda call: self.create(call, "payin")),
            ("POST", "/api/v1/payouts", lambda call: self.create(call, "payout")),
            ("GET", "/api/v1/payins/{id}", lambda call: self.fetch(call, "payin")),
            ("GET", "/api/v1/payouts/{id}", lambda call: self.fetch(call, "payout")),
            ("GET", "/api/v1/balance", self.balance),
        ]

    def trouble(self, call: Call, status: int) -> Reply:
        """Build the error object with this status; there is no 429, which comes as 500."""
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, f"server_error_{status}")
        return self._requests.refuse(code if code in ERRORS else "server_error_500").reply

    def create(self, call: Call, kind: str) -> Reply:
        """Create an operation (201), or return the one with its external_id (200)."""
        self._requests.authorise(call)
        body = self._requests.read(call)
        self._requests.provoke(body.get("external_id"))
        amount = self._requests.check(body, kind)
        resource = self.world.find(self.name, kind, body["external_id"])
        if resource is not None:
            if self._shop.on_conflict == "refuse" and resource.data["body"] != plain(body):
                raise self._requests.refuse("external_id_conflict")
            return json_reply(200, self.shown(resource, is_full=True))
        if kind == "payout" and round(amount * 100) > self._available():
            raise self._requests.refuse("insufficient_balance")
        name, at = self.world.name(self.name, kind, body["external_id"]), now()
        resource = Resource(
            provider=self.name,
            kind=kind,
            ref=body["external_id"],
            provider_id=str(self.world.number(self.name)),
            reference=body["external_id"],
            state="pending",
            amount_minor=round(amount * 100),
            currency=self._shop.currency,
            name=name,
            created_at=at,
            updated_at=at,
            data={"body": plain(body), "amount": f"{amount:.2f}"},
        )
        self.expires(resource, self._shop.ttl_seconds)
        self.world.add(resource)
        return json_reply(201, self.shown(resource, is_full=True))

    def fetch(self, call: Call, kind: str) -> Reply:
        """Return the operation with this external_id in the shop asked for.

        The path is outside the signature.
        """
        self._requests.authorise(call)
        code = magic_code(call.params["id"])
        if code:
            self._requests.provoke(call.params["id"])
        shop = call.query.get("shop_code")
        if not shop and not self._shop.is_default:
            raise self._requests.refuse("no_default_shop")
        resource = self.world.find(self.name, kind, call.params["id"])
        if resource is None or shop not in (None, "", self._shop.shop_code):
            raise self._requests.refuse(f"{kind}_not_found")
        return json_reply(200, self.shown(resource, is_full=False))

    def balance(self, call: Call) -> Reply:
        """Return a snapshot of the shop's money."""
        self._requests.authorise(call)
        pending, available = self._pending(), self._available()
        value = {
            "shop_code": self._shop.shop_code,
            "currency": self._shop.currency,
            "available": _money(available),
            "pending": _money(pending),
            "frozen": "0.00",
            "credit": "0.00",
            "total": _money(available + pending),
            "buckets": [],
            "pending_breakdown": {"payouts": _money(pending)},
            "as_of": iso(now()),
        }
        return json_reply(200, value)

    def _pending(self) -> int:
        return sum(item.amount_minor for item in self.world.all(self.name, "payout") if item.state == "pending")

    def _available(self) -> int:
        received = sum(item.amount_minor for item in self.world.all(self.name, "payin") if item.state == "success")
        spent = sum(
            item.amount_minor for item in self.world.all(self.name, "payout") if item.state in {"pending", "success"}
        )
        return self._shop.balance_minor + received - spent

    def shown(self, resource: Resource, *, is_full: bool) -> dict[str, Any]:
        """Build the operation object as create (full) or read shows it.

        NEW leaves nulls out, OLD keeps them.
        """
        body, is_payin = resource.data["body"], resource.kind == "payin"
        payment_data = dict(body.get("paymentData") or {})
        value: dict[str, Any] = {
            "id": int(resource.provider_id),
            "external_id": resource.ref,
            "shop_code": self._shop.shop_code,
            "status": resource.state,
            "amount": resource.data["amount"],
            "currency": resource.currency,
        }
        if is_payin and resource.currency == "BDT":
            payment_data["payment_link"] = self.page_url(resource.provider_id)
        if is_full:
            value |= {
                "card_number": body.get("card_number"),
                "merchant_user_id": body.get("merchant_user_id"),
                "merchant_user_ip": body.get("merchant_user_ip"),
                "callback_url": body.get("callback_url"),
                "transaction_type": resource.kind,
                "created_at": iso(resource.created_at),
                "finalization_date": iso(resource.updated_at) if resource.state != "pending" else None,
            }
            if is_payin and resource.currency != "BDT":
                value["payment_page_url"] = self.page_url(resource.provider_id)
                value["payment_page_expires_at"] = iso(resource.expires_at) if resource.expires_at else None
            if is_payin:
                del value["card_number"]
        value |= {"updated_at": iso(resource.updated_at), "paymentData": payment_data}
        if self._is_new:
            value = {key: item for key, item in value.items() if item is not None and item != {}}
        return value

    def moved(self, resource: Resource, before: str) -> None:
        """Send a callback for the change to the operation's URL, else to the shop's."""
        url, secret = self._webhooks.get(resource.kind, ("", ""))
        own = resource.data["body"].get("callback_url")
        if own:
            url, secret = own, secret or self._shop.webhook_secret
        if not url:
            return
        body = self._callback(resource)
        name = f"{resource.name}/{resource.state}/{resource.nth(resource.state)}"
        self.stage.deliveries.post(
            Message(
                provider=self.name,
                name=name,
                lane=resource.name,
                event=resource.state,
                url=url,
                body=to_json(body),
                sign=payfield(secret, self._shop.digest),
                sign_wrongly=payfield("not_the_secret_of_anybody", self._shop.digest),
                policy=POLICY,
                forged=to_json(body | {"status": "success"}),
                altered=to_json(body | {"amount": f"{Decimal(resource.data['amount']) + 1:.2f}"}),
            )
        )

    def _callback(self, resource: Resource) -> dict[str, Any]:
        body = {
            "id": int(resource.provider_id),
            "external_id": resource.ref,
            "shop_code": self._shop.shop_code,
            "status": resource.state,
            "amount": resource.data["amount"],
            "currency": resource.currency,
            "updated_at": iso(resource.updated_at),
        }
        payment_data = resource.data["body"].get("paymentData")
        return body | ({"paymentData": payment_data} if payment_data else {})

    def moves_for(self, resource: Resource, action: str) -> list[str] | None:
        """Every action is one move."""
        state = {
            "pay": "success",
            "decline": "failed",
            "cancel": "canceled",
            "expire": "expired",
            "refund": "refunded",
        }.get(action)
        return [state] if state else None

    def take_late_money(self, resource: Resource) -> None:
        """Turn the operation to success although it had ended."""
        self.world.move(resource, "success", forced=True)

    def register(self, url: str, kind: str, secret: str | None) -> None:
        """Set the shop's webhook URL for `payin`, `payout` or, without a kind, both."""
        for each in [kind] if kind else ["payin", "payout"]:
            self._webhooks[each] = (url, self._shop.webhook_secret if secret is None else secret)


class PayfieldOld(Payfield):
    """OLD dialect: numbers, errors of only a message, empty fields kept."""

    name = "payfield_old"
    prefix = "/payfield-old"

    def shop_of(self, stage: Stage) -> PayfieldShop:
        """Return the shop that this dialect serves."""
        return stage.config.payfield_old


def _money(minor: int) -> str:
    return f"{Decimal(minor) / 100:.2f}"
