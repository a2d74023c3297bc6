"""Banked's webhooks: registration, flat v2 bodies and the v3 envelope.

Both versions keep the provider's spelling.
"""

from dataclasses import dataclass
from typing import Any, TypeGuard

from sandbox.banked.account import Account
from sandbox.banked.errors import refuse
from sandbox.deliver import Message, Policy
from sandbox.provider import Stage
from sandbox.signing import banked
from sandbox.times import iso, now
from sandbox.web import Call, Handler, Reply, json_reply, to_json
from sandbox.world import Resource

#: 25 retries over about 20 days; the formula is inferred. 410 ends it.
POLICY = Policy(delays=tuple(n**4 + 15.0 for n in range(25)), is_gone_final=True)
PER_EVENT = 5

V2_EVENTS: dict[str, dict[str, str]] = {
    "payment_session": {
        "initiated": "payment_initiated",
        "pending": "payment_pending",
        "sent": "payment_sent",
        "failed": "payment_failed",
    },
    "payout": {
        "pending": "payout_pending",
        "sent": "payout_sent",
        "failed": "payout_failed",
        "canceled": "payout_canceled",
    },
}
V3_EVENTS: dict[str, dict[str, str]] = {
    "payin": {
        "INITIATED": "payment_initiated",
        "PENDING": "payment_pending",
        "SENT": "payment_sent",
        "FAILED": "payment_failed",
        "CANCELED": "payment_canceled",
    },
    "refund": {
        "awaiting_payment": "refund_pending",
        "sent": "refund_sent",
        "externally processed": "refund_sent",
        "failed": "refund_failed",
    },
}
REDACTED = "_redacted"  #: our suffix: the pages name no event for the redacted variants
MANDATES = tuple(
    f"mandate_{each}" for each in ("pending", "active", "declined", "suspended", "cancelled", "expired", "failed")
)
KNOWN = {
    "v2": {event for kind in V2_EVENTS.values() for event in kind.values()}
    | {event + REDACTED for event in V2_EVENTS["payment_session"].values()}
    | {"batch_payment_failed", *MANDATES},
    "v3": {event for kind in V3_EVENTS.values() for event in kind.values()} | {"refund_canceled", *MANDATES},
}
PAID = {"payment_session": "sent", "payout": "sent", "refund": "sent", "payin": "SENT"}


@dataclass(frozen=True, slots=True)
class _Webhook:
    id: str
    version: str
    url: str
    events: frozenset[str]
    key: str
    kinds: frozenset[str]
    created_at: str


class Webhooks:
    """Webhook endpoints by event, and the deliveries to them."""

    def __init__(self, stage: Stage, owner: Account) -> None:
        self._stage, self._owner = stage, owner
        self._hooks: list[_Webhook] = []

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Register, list and delete in v2 and v3."""
        calls: list[tuple[str, str, Handler]] = []
        for version in ("v2", "v3"):
            calls += [
                ("POST", f"/{version}/webhooks", self.create),
                ("GET", f"/{version}/webhooks", self.list_all),
                ("DELETE", f"/{version}/webhooks/{{id}}", self.delete),
            ]
        return calls

    def register(self, url: str, kind: str, key: str) -> None:
        """One webhook per version for every event of `kind`, or of all kinds."""
        for version, events in (("v2", V2_EVENTS), ("v3", V3_EVENTS)):
            kinds = frozenset({kind} & set(events) if kind else events)
            if kinds:
                wanted = frozenset(event for each in kinds for event in events[each].values())
                self._hooks = [
                    hook for hook in self._hooks if (hook.version, hook.url, hook.kinds) != (version, url, kinds)
                ]
                self._hooks.append(self._hook(version, url, wanted, key, kinds))

    def _hook(self, version: str, url: str, events: frozenset[str], key: str, kinds: frozenset[str]) -> _Webhook:
        world = self._stage.world
        identifier = world.uuid(world.name(self._owner.name, "webhook", url))
        return _Webhook(identifier, version, url, events, key, kinds, iso(now()))

    def create(self, call: Call) -> Reply:
        """Register a webhook (201); at most five distinct ones per event.

        The key's field name is ours.
        """
        version = call.path[1:3]
        body = self._owner.read(call)
        url, given = body.get("target_url"), body.get("events")
        events = [each for each in given if each in KNOWN[version]] if _is_strings(given) else []
        problems = []
        if not self._owner.is_acceptable(url):
            problems.append(("invalid_request", "target_url"))
        if not events or events != given:
            problems.append(("invalid_request", "events"))
        key = body.get("signature_key", self._owner.own.signature_key)
        if not isinstance(key, str) or not key:
            problems.append(("invalid_request", "signature_key"))
        if not problems and self._is_crowded(version, str(url), events):
            problems.append(("invalid_request", "events"))
        if problems:
            raise refuse(call, problems)
        kinds = frozenset(V2_EVENTS if version == "v2" else V3_EVENTS)
        hook = self._hook(version, str(url), frozenset(events), key, kinds)
        self._hooks.append(hook)
        return json_reply(201, _shown(hook))

    def _is_crowded(self, version: str, url: str, events: list[str]) -> bool:
        def others(event: str) -> set[str]:
            return {hook.url for hook in self._hooks if hook.version == version and event in hook.events} - {url}

        return any(len(others(event)) >= PER_EVENT for event in events)

    def list_all(self, call: Call) -> Reply:
        """List the webhooks of this version."""
        rows = [_shown(hook) for hook in self._hooks if hook.version == call.path[1:3]]
        return json_reply(200, rows if call.path.startswith("/v2") else {"data": rows})

    def delete(self, call: Call) -> Reply:
        """204, or not_found."""
        left = [hook for hook in self._hooks if hook.id != call.params["id"]]
        if len(left) == len(self._hooks):
            raise refuse(call, [("not_found", "id")])
        self._hooks = left
        return Reply(204)

    def tell(self, resource: Resource) -> None:
        """Send the event of the resource's state, if that state has one."""
        kind = resource.kind
        version = "v2" if kind in V2_EVENTS else "v3"
        event = (V2_EVENTS if version == "v2" else V3_EVENTS)[kind].get(resource.state)
        if event is None:
            return
        name = f"{resource.name}/{event}/{resource.nth(event)}"
        hooks = [hook for hook in self._hooks if hook.version == version and kind in hook.kinds]
        wanted = [(hook, each) for hook in hooks for each in (event, event + REDACTED) if each in hook.events]
        for number, (hook, each) in enumerate(wanted):
            make = self._flat if version == "v2" else self._envelope
            body, forged, altered = make(resource, event, name, is_redacted=each.endswith(REDACTED))
            self._stage.deliveries.post(
                Message(
                    provider=self._owner.name,
                    name=f"{name}/{number}",
                    lane=f"{resource.name}/{hook.url}",
                    event=event,
                    url=hook.url,
                    body=to_json(body),
                    sign=banked(hook.key),
                    sign_wrongly=banked("not_the_key_of_anybody"),
                    policy=POLICY,
                    forged=to_json(forged),
                    altered=to_json(altered),
                )
            )

    def _flat(self, resource: Resource, event: str, name: str, *, is_redacted: bool) -> tuple[dict[str, Any], ...]:
        body = self._owner.shown(resource)
        if is_redacted:
            body = {key: value for key, value in body.items() if key not in {"payer", "payee"}}
        # The provider misspells the field in bodies of payments that are not redacted, and only there.
        field = "webook_type" if resource.kind == "payment_session" and not is_redacted else "webhook_type"
        body |= {"webhook_event": event, field: resource.kind}
        claimed = {"state": "sent", "webhook_event": event.split("_", maxsplit=1)[0] + "_sent"}
        return body, body | claimed, body | {"amount": resource.amount_minor + 100}

    def _envelope(self, resource: Resource, event: str, name: str, *, is_redacted: bool) -> tuple[dict[str, Any], ...]:
        data = self._owner.shown(resource)
        body = {
            "id": self._stage.world.uuid(name, "event"),
            "type": event,
            "version": "v3",
            "data_version": 3 if resource.kind == "payin" else 1,
            "data": data,
        }
        paid = PAID[resource.kind]
        claimed = {"status_details": {"status": paid, "reason": None}} if resource.kind == "payin" else {"state": paid}
        forged = body | {
            "id": self._stage.world.uuid(name, "forged"),
            "type": event.split("_", maxsplit=1)[0] + "_sent",
            "data": data | claimed,
        }
        return body, forged, body | {"data": data | {"amount": resource.amount_minor + 100}}


def _is_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _shown(hook: _Webhook) -> dict[str, Any]:
    return {
        "id": hook.id,
        "target_url": hook.url,
        "events": sorted(hook.events),
        "created_at": hook.created_at,
    }
