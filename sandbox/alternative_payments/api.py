"""Alternative Payments' API under `/alternative-payments`."""

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from sandbox.alternative_payments.account import ERRORS, Account
from sandbox.alternative_payments.pages import paged
from sandbox.alternative_payments.webhooks import Subscriptions
from sandbox.provider import Stage, magic_code, read_json
from sandbox.times import iso, now
from sandbox.web import Call, Handler, Reply, json_reply
from sandbox.world import Lifecycle, Resource

REQUEST = Lifecycle(
    initial="pending",
    moves={"pending": ("paid", "expired", "cancelled")},
    paid=frozenset({"paid"}),
    unpaid_ends=frozenset({"expired", "cancelled"}),
)


class AlternativePayments(Account):
    """Alternative Payments as documented; what is left open is configured."""

    name = "alternative_payments"
    prefix = "/alternative-payments"
    lifecycles: ClassVar[Mapping[str, Lifecycle]] = {"payment_request": REQUEST}
    create_paths: ClassVar[Mapping[str, str]] = {"payment_request": "/payment/request"}

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._payments: list[dict[str, Any]] = []
        self.subscriptions = Subscriptions(stage, self)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Both spellings of the path, since the provider documents both."""
        calls: list[tuple[str, str, Handler]] = [("POST", "/oauth/token", self.token)]
        for path in ("/payment/request", "/payments/request"):
            calls += [("POST", path, self.create), ("GET", path + "/{id}", self.fetch)]
        calls.append(("GET", "/payments", self.list_payments))
        return calls + self.subscriptions.routes()

    def create(self, call: Call) -> Reply:
        """Create a payment request with its hosted link.

        There is no idempotency key, so a repeat makes another.
        """
        self.authorise(call)
        body = read_json(call, self.refuse(400, "The body is not a JSON object").reply)
        code = magic_code(body.get("reference_id"))
        if code.isdigit() and int(code) in ERRORS:
            raise self.refuse(int(code))
        amount_minor, reference = self._checked(body)
        name = self.world.name(self.name, "payment_request", reference)
        identifier, at = self.world.uuid(name), now()
        resource = Resource(
            provider=self.name,
            kind="payment_request",
            ref=identifier,
            provider_id=identifier,
            reference=reference,
            state="pending",
            amount_minor=amount_minor,
            currency="USD",
            name=name,
            created_at=at,
            updated_at=at,
            data={"redirect_url": body["redirect_url"], "is_odd": code == "unknown_status"},
        )
        self.expires(resource, self._own.ttl_seconds)
        self.world.add(resource)
        return json_reply(200, self.shown(resource))

    def _checked(self, body: dict[str, Any]) -> tuple[int, str]:
        missing = [name for name in ("amount", "currency", "redirect_url") if body.get(name) in (None, "")]
        if missing:
            raise self.refuse(400, f"{missing[0]} is required", dict.fromkeys(missing, "required"))
        wrong = [
            name
            for name in ("amount", "currency", "redirect_url", "reference_id")
            if not isinstance(body.get(name, ""), str | None)
        ]
        if wrong:
            raise self.refuse(400, f"{wrong[0]} must be a string", dict.fromkeys(wrong, "must be a string"))
        amount = body["amount"]
        if not (amount.isascii() and amount.isdigit() and len(amount) < 16 and int(amount) > 0):
            raise self.refuse(422, "amount must be a positive integer", {"amount": "must be a positive integer"})
        if body["currency"] != "USD":
            raise self.refuse(422, "unsupported currency", {"currency": "must be USD"})
        if not self.is_acceptable(body["redirect_url"]):
            raise self.refuse(422, "redirect_url must be HTTPS", {"redirect_url": "must be an HTTPS URL"})
        return int(amount) * (100 if self._own.amount_unit == "major" else 1), body.get("reference_id") or ""

    def fetch(self, call: Call) -> Reply:
        """Return one payment request; 400 for an id that is no UUID, 404 if not here."""
        self.authorise(call)
        text = call.params["id"]
        code = magic_code(text)
        if code.isdigit() and int(code) in ERRORS:
            raise self.refuse(int(code))
        try:
            uuid.UUID(text)
        except ValueError:
            raise self.refuse(400, "id is not a UUID") from None
        resource = self.world.find(self.name, "payment_request", text)
        if resource is None:
            raise self.refuse(404)
        return json_reply(200, self.shown(resource))

    def shown(self, resource: Resource) -> dict[str, Any]:
        """Build the PaymentRequest object, which has no amount, currency or times."""
        return {
            "id": resource.ref,
            "reference_id": resource.reference or None,
            "status": "under_review" if resource.data["is_odd"] else resource.state,
            "url": self.page_url(resource.provider_id),
            "redirect_url": resource.data["redirect_url"],
        }

    def list_payments(self, call: Call) -> Reply:
        """Payments, oldest first, in the cursor envelope."""
        self.authorise(call)
        return json_reply(200, paged(self, self._payments, call))

    def moved(self, resource: Resource, before: str) -> None:
        """Make a Payment of a paid request, and report it: the request has no topic."""
        if resource.state == "paid":
            self._payments.append(self._payment(resource))
            self.subscriptions.tell("payment_succeeded", resource, self._payments[-1])

    def _payment(self, resource: Resource, status: str = "succeeded") -> dict[str, Any]:
        total = resource.amount_minor / 100
        payment: dict[str, Any] = {
            "id": self.world.uuid(resource.name, "payment"),
            "created_at": iso(resource.updated_at),
            "customer_id": None,
            "due_date": None,
            "fees": [],
            "payment_method": "card",
            "status": status,
            "sub_total": total,
            "total": total,
        }
        if self._own.links_payment_to_request:
            payment |= {"payment_request_id": resource.ref, "reference_id": resource.reference or None}
        return payment

    def moves_for(self, resource: Resource, action: str) -> list[str] | None:
        """Paying, cancelling and expiring are one move each."""
        state = {"pay": "paid", "cancel": "cancelled", "expire": "expired"}.get(action)
        return [state] if state else None

    def act(self, resource: Resource, action: str, options: Mapping[str, Any]) -> None:
        """Do an action, also `attempt_fails` and `refund`, which have topics.

        Those two leave the request as it is.
        """
        topics = {("attempt_fails", "pending"): "payment_failed", ("refund", "paid"): "payment_refunded"}
        topic = topics.get((action, resource.state))
        if topic:
            status = topic.removeprefix("payment_")
            self.subscriptions.tell(topic, resource, self._payment(resource, status))
            return
        super().act(resource, action, options)

    def take_late_money(self, resource: Resource) -> None:
        """Turn the request paid although it had ended."""
        self.world.move(resource, "paid", forced=True)

    def return_url(self, resource: Resource) -> str:
        """Return the merchant's redirect_url."""
        return str(resource.data["redirect_url"])

    def register(self, url: str, kind: str, secret: str | None) -> None:
        """Subscribe the URL to the topic `kind`, or to all payment topics."""
        topics = [kind] if kind else ["payment_succeeded", "payment_failed", "payment_refunded"]
        for topic in topics:
            self.subscriptions.add(url, topic, self._own.webhook_secret if secret is None else secret)
