"""Alternative Payments' subscriptions: one topic each, a bearer token, unsigned."""

import uuid
from typing import Any

from sandbox.alternative_payments.account import Account
from sandbox.alternative_payments.pages import instant_of, paged
from sandbox.deliver import Message, Policy
from sandbox.provider import Stage, read_json
from sandbox.signing import alternative_payments
from sandbox.times import iso, now
from sandbox.web import Call, Handler, Reply, json_reply, to_json
from sandbox.world import Resource

TOPICS = frozenset(
    {
        "payout_paid",
        "payout_processing",
        "payout_scheduled",
        "payout_failed",
        "customer_created",
        "customer_updated",
        "customer_archived",
        "payment_succeeded",
        "payment_refunded",
        "payment_chargeback",
        "payment_failed",
        "invoice_created",
        "invoice_updated",
        "invoice_paid",
        "invoice_archived",
        "payment_method_added",
        "default_payment_method_changed",
        "payment_method_deleted",
    }
)

#: Ours: the provider documents no schedule.
POLICY = Policy(delays=(10.0, 60.0, 300.0, 1800.0, 7200.0))


class Subscriptions:
    """Webhook subscriptions by topic, and the log of events."""

    def __init__(self, stage: Stage, owner: Account) -> None:
        self._stage, self._owner = stage, owner
        self._rows: list[dict[str, Any]] = []
        self._secrets: dict[str, str] = {}
        self._events: list[dict[str, Any]] = []

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Subscribe, list, unsubscribe, event log."""
        return [
            ("POST", "/webhooks", self.subscribe),
            ("GET", "/webhooks", self.list_all),
            ("GET", "/webhooks/events", self.list_events),
            ("DELETE", "/webhooks/{id}", self.unsubscribe),
        ]

    def add(self, url: str, topic: str, secret: str) -> dict[str, Any]:
        """Add an active subscription."""
        world, at = self._stage.world, iso(now())
        row: dict[str, Any] = {
            "id": world.uuid(world.name(self._owner.name, "subscription", topic)),
            "partner_id": world.uuid("partner", "partner"),
            "endpoint_url": url,
            "topic": topic,
            "is_active": True,
            "secret_last_4_digits": secret[-4:] if secret else None,
            "created_at": at,
            "updated_at": at,
        }
        self._rows.append(row)
        self._secrets[row["id"]] = secret
        return row

    def subscribe(self, call: Call) -> Reply:
        """Add a subscription (201).

        400 without the required fields, 422 for a bad URL or topic.
        """
        owner = self._owner
        owner.authorise(call)
        body = read_json(call, owner.refuse(400, "The body is not a JSON object").reply)
        for name in ("endpoint_url", "topic"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise owner.refuse(400, f"{name} is required", {name: "required"})
        secret = body.get("secret_key") or ""
        if not isinstance(secret, str):
            raise owner.refuse(400, "secret_key must be a string", {"secret_key": "must be a string"})
        if not owner.is_acceptable(body["endpoint_url"]):
            raise owner.refuse(422, "endpoint_url must be HTTPS", {"endpoint_url": "must be an HTTPS URL"})
        if body["topic"] not in TOPICS:
            raise owner.refuse(422, "unknown topic", {"topic": "unknown"})
        return json_reply(201, self.add(body["endpoint_url"], body["topic"], secret))

    def list_all(self, call: Call) -> Reply:
        """Subscriptions by topic and activity, in the cursor envelope."""
        self._owner.authorise(call)
        topic, active = call.query.get("topic"), call.query.get("is_active")

        def is_wanted(row: dict[str, Any]) -> bool:
            return topic in (None, row["topic"]) and active in (None, str(row["is_active"]).lower())

        return json_reply(200, paged(self._owner, self._rows, call, is_wanted))

    def unsubscribe(self, call: Call) -> Reply:
        """Make a subscription inactive (200).

        400 for an id that is no UUID, 404 for an unknown one.
        """
        self._owner.authorise(call)
        try:
            uuid.UUID(call.params["id"])
        except ValueError:
            raise self._owner.refuse(400, "id is not a UUID") from None
        for row in self._rows:
            if row["id"] == call.params["id"] and row["is_active"]:
                row |= {"is_active": False, "updated_at": iso(now())}
                return json_reply(200, row)
        raise self._owner.refuse(404)

    def list_events(self, call: Call) -> Reply:
        """List the event log by topic, status and time of creation, oldest first."""
        owner, query = self._owner, call.query
        owner.authorise(call)
        since, until = instant_of(owner, call, "created_after"), instant_of(owner, call, "created_before")

        def is_wanted(row: dict[str, Any]) -> bool:
            return (
                query.get("topic") in (None, row["topic"])
                and query.get("status") in (None, row["status"])
                and (since is None or row["created_at"] > iso(since))
                and (until is None or row["created_at"] < iso(until))
            )

        return json_reply(200, paged(owner, self._events, call, is_wanted))

    def tell(self, topic: str, resource: Resource, payment: dict[str, Any]) -> None:
        """Send the topic to its active subscriptions.

        The body's shape is ours, as none is documented.
        """
        nth = resource.nth(topic)
        body = {"topic": topic, "created_at": iso(now()), "data": payment}
        dearer = payment | {"sub_total": payment["sub_total"] + 1, "total": payment["total"] + 1}
        name = f"{resource.name}/{topic}/{nth}"
        self._events.append(
            {
                "id": self._stage.world.uuid(name, "event"),
                "topic": topic,
                "status": "sent",
                "created_at": body["created_at"],
                "payload": payment,
            }
        )
        receivers = [row for row in self._rows if row["topic"] == topic and row["is_active"]]
        for number, row in enumerate(receivers):
            self._stage.deliveries.post(
                Message(
                    provider=self._owner.name,
                    name=f"{name}/{number}",
                    lane=f"{resource.name}/{row['endpoint_url']}",
                    event=topic,
                    url=row["endpoint_url"],
                    body=to_json(body),
                    sign=alternative_payments(self._secrets[row["id"]]),
                    sign_wrongly=alternative_payments("not_the_secret_of_anybody"),
                    policy=POLICY,
                    forged=to_json(body | {"topic": "payment_succeeded", "data": payment | {"status": "succeeded"}}),
                    altered=to_json(body | {"data": dearer}),
                    has_timestamp=False,
                )
            )
