"""Form of the effects that shops receive: fields, JSON Schema and samples.

The table of docs/your-shop.md, docs/effects.schema.json, the `webhooks` of the OpenAPI document and the samples of
`receipted trigger` are made from here, and a test compares what the worker writes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from statemachine.money import from_minor
from statemachine.phases import Alarm, Effect, Phase, Review
from statemachine.sums import PartKind, PartStatus

#: Meaning of each effect of a payment, as its receiver needs it.
MEANINGS: Final[Mapping[Effect, str]] = {
    Effect.AUTHORISED: "The money is guaranteed and not captured yet.",
    Effect.PAID: "The payment is paid: fulfil the order. Sent once for a payment.",
    Effect.SETTLED: "The money has reached your bank.",
    Effect.FAILED: "The payment ended without money and was never paid.",
    Effect.CANCELLED: "The payment was cancelled and was never paid.",
    Effect.EXPIRED: "The payment was not paid in time.",
    Effect.REFUNDED: "All of the money was given back.",
    Effect.REVERSED: "Money that was there is gone: stop what you have not shipped.",
    Effect.RESTORED: "Money that was gone is there again.",
    Effect.CAPTURED: "One capture succeeded, or an earlier one failed: see `change_minor`.",
    Effect.REFUND_CHANGED: "One refund began, succeeded or failed: see `part` and `change_minor`.",
    Effect.DISPUTED: "The payer's bank reclaims money.",
    Effect.DISPUTE_WON: "A dispute ended, and the money stays yours.",
    Effect.DISPUTE_LOST: "A dispute ended, and the money is taken back.",
    Effect.REVIEW_REQUIRED: "A person must decide about the payment: see `review` and `reason`.",
    Effect.REVIEW_CLOSED: "The review is over.",
}

#: Meaning of each effect of an account.
ALARM_MEANINGS: Final[Mapping[Alarm, str]] = {
    Alarm.SILENT: "No verified delivery has come for implausibly long.",
    Alarm.PUSH_LOSS: "Too many of the provider's webhooks are lost.",
    Alarm.UNVERIFIED: "Deliveries come, and every one fails verification.",
    Alarm.DRIFT: "A reconciliation found what no webhook had reported.",
    Alarm.UNREACHABLE: "The provider has been unreachable for long.",
    Alarm.DEAD_LETTERS: "Messages or effects were given up.",
}


class EffectField(NamedTuple):
    """One field of an effect's JSON."""

    name: str
    schema: Mapping[str, Any]  #: JSON Schema of its value
    meaning: str
    example: object


def _text(*, can_be_null: bool = False, **more: Any) -> dict[str, Any]:
    return {"type": ["string", "null"] if can_be_null else "string", **more}


def _minor() -> dict[str, Any]:
    return {"type": ["integer", "null"]}


def _one_of(values: list[str], *, can_be_null: bool = False) -> dict[str, Any]:
    """Null is among the values where it may be given: `enum` alone decides."""
    return _text(can_be_null=can_be_null, enum=[*values, None] if can_be_null else values)


_INSTANT: Final = {"type": "string", "format": "date-time"}

PART_FIELDS: Final = (
    EffectField("kind", _one_of([kind.value for kind in PartKind]), "capture, refund or dispute", "refund"),
    EffectField("name", _text(), "the provider's id of it", "re_3311"),
    EffectField(
        "status", _one_of([status.value for status in PartStatus]), "pending, done, or undone where it failed", "done"
    ),
    EffectField("amount_minor", _minor(), "in whole minor units; null where the provider does not say", 1900),
    EffectField(
        "as_of", _text(can_be_null=True, format="date-time"), "by the provider's clock", "2026-11-21T10:31:00+00:00"
    ),
)

PAYMENT_FIELDS: Final = (
    EffectField(
        "effect_id",
        _text(format="uuid"),
        "id of the effect: the same at every attempt, at every sink and after a restored backup",
        "0197c1f0-0000-8000-8000-000000000001",
    ),
    EffectField("payment", _text(format="uuid"), "id of the payment here", "0197c1f0-0000-7000-8000-000000000002"),
    EffectField("account", _text(), "name of the account in the settings", "shop"),
    EffectField("kind", _text(), "the provider's resource, such as payment_intent", "payment_intent"),
    EffectField("provider_ref", _text(can_be_null=True), "the provider's id of the payment", "pi_7c1f"),
    EffectField("reference", _text(can_be_null=True), "your own id of the payment", "order-1017"),
    EffectField("description", _text(can_be_null=True), "your own words, as the payment was created with", "2 tickets"),
    EffectField(
        "metadata",
        {"type": "object", "additionalProperties": {"type": "string"}},
        "your own names and values",
        {"cart": "c-88"},
    ),
    EffectField("amount_minor", _minor(), "in whole minor units: 4900 is 49.00 USD, or 4900 JPY", 4900),
    EffectField("amount", _text(can_be_null=True), "the same as an exact decimal text", "49.00"),
    EffectField("currency", _text(can_be_null=True), "ISO 4217", "USD"),
    EffectField("authorised_minor", _minor(), "authorised in all; null where the provider never said", None),
    EffectField("captured_minor", _minor(), "captured in all", 4900),
    EffectField("refunded_minor", _minor(), "refunded in all", None),
    EffectField("refunded", _text(can_be_null=True), "the same as an exact decimal text", None),
    EffectField("charged_back_minor", _minor(), "taken back by disputes in all", None),
    EffectField("disputed_minor", _minor(), "in open disputes", None),
    EffectField(
        "occurrence",
        {"type": "integer", "minimum": 0},
        "which one of its name this effect of the payment is: 0 for the first",
        0,
    ),
    EffectField(
        "part",
        {"anyOf": [{"$ref": "EffectPart"}, {"type": "null"}]},
        "the capture, refund or dispute that the effect is about; else null",
        None,
    ),
    EffectField("change_minor", _minor(), "by how much it changed its sum; below 0 where it was taken back", None),
    EffectField("state", _text(can_be_null=True), "in the provider's own words", "succeeded"),
    EffectField("phase", _one_of([phase.value for phase in Phase]), "meaning of the state", "paid"),
    EffectField(
        "version",
        {"type": "integer", "minimum": 0},
        "number of the payment's last transition; what has a smaller one than you have seen is older",
        2,
    ),
    EffectField("failure_reason", _text(can_be_null=True), "why it failed, where the provider says so", None),
    EffectField(
        "review",
        _one_of([review.value for review in Review], can_be_null=True),
        "why a person must decide, or had to",
        None,
    ),
    EffectField("review_number", _minor(), "1 for the payment's first review", None),
    EffectField("reason", _text(), "why the effect is sent, in words", "payment_intent.succeeded"),
)

ALARM_FIELDS: Final = (
    EffectField(
        "effect_id",
        _text(format="uuid"),
        "id of the effect; an end has its own",
        "0197c1f0-0000-8000-8000-00000000000a",
    ),
    EffectField("account", _text(), "name of the account in the settings", "shop"),
    EffectField("alarm", _one_of([alarm.value for alarm in Alarm]), "which alarm", "silent"),
    EffectField("since", _INSTANT, "when it began", "2026-11-21T10:00:00+00:00"),
    EffectField("is_over", {"type": "boolean"}, "false when it begins, true when it is over", False),
    EffectField("reason", _text(), "what is wrong, and what to do", "no delivery for 3 hours; look at its dashboard"),
    EffectField(
        "details",
        {"type": "object", "additionalProperties": {"type": ["number", "string", "null"]}},
        "figures of the alarm",
        {"silent_seconds": 10800},
    ),
)

ENVELOPE_FIELDS: Final = (
    EffectField("type", _text(), "name of the effect", "payment.paid"),
    EffectField("timestamp", _INSTANT, "when it became owed", "2026-11-21T10:30:00+00:00"),
    EffectField("data", {"type": "object"}, "the fields below", {}),
)

#: Schemas that several effects share, by the names that they have in the OpenAPI document.
SHARED_SCHEMAS: Final[Mapping[str, tuple[EffectField, ...]]] = {
    "EffectPart": PART_FIELDS,
    "PaymentEffectData": PAYMENT_FIELDS,
    "AlarmEffectData": ALARM_FIELDS,
}


def effect_meanings(subjects: tuple[str, ...] = ("payment",)) -> dict[str, str]:
    """Return the meaning of every effect by name; `subjects` are of lifecycles."""
    found = {_name(effect, subject): told for subject in subjects for effect, told in MEANINGS.items()}
    return found | {alarm.effect: told for alarm, told in ALARM_MEANINGS.items()}


def shared_schemas(prefix: str) -> dict[str, Any]:
    """Return the schemas that effects refer to.

    `prefix` stands before names in references.
    """
    return {
        name: {
            "title": name,
            "type": "object",
            "required": [field.name for field in fields],
            "properties": {field.name: _described(field, prefix) for field in fields},
        }
        for name, fields in SHARED_SCHEMAS.items()
    }


def effect_schema(effect: str, prefix: str) -> dict[str, Any]:
    """Return the JSON Schema of one effect's body."""
    data = "AlarmEffectData" if is_alarm(effect) else "PaymentEffectData"
    fields = {field.name: _described(field, prefix) for field in ENVELOPE_FIELDS}
    fields["type"] = {"const": effect, "description": fields["type"]["description"]}
    fields["data"] = {"$ref": f"{prefix}{data}"}
    return {"type": "object", "required": list(fields), "properties": fields}


def schema_file() -> dict[str, Any]:
    """Return one JSON Schema that every effect fits."""
    prefix = "#/$defs/"
    endings = "|".join(effect.value.partition(".")[2] for effect in Effect)
    payment, alarm = effect_schema("payment.paid", prefix), effect_schema(Alarm.SILENT.effect, prefix)
    payment["properties"]["type"] = {"type": "string", "pattern": rf"^(?!account\.)[a-z]{{1,20}}\.({endings})$"}
    alarm["properties"]["type"] = {"enum": [each.effect for each in Alarm]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Effect",
        "description": "The body of each POST to a sink. New fields may be added.",
        "oneOf": [payment, alarm],
        "$defs": shared_schemas(prefix),
    }


def is_alarm(effect: str) -> bool:
    """Tell whether the effect is about an account."""
    return any(effect == alarm.effect for alarm in Alarm)


def _name(effect: Effect, subject: str) -> str:
    return f"{subject}.{effect.value.partition('.')[2]}"


def _described(field: EffectField, prefix: str) -> dict[str, Any]:
    def referred(schema: Any) -> Any:
        if isinstance(schema, Mapping):
            return {key: f"{prefix}{value}" if key == "$ref" else referred(value) for key, value in schema.items()}
        return [referred(each) for each in schema] if isinstance(schema, list) else schema

    described: dict[str, Any] = {**referred(field.schema), "description": field.meaning}
    if field.example is not None and field.name != "data":
        described["examples"] = [field.example]
    return described


#: What differs from the example of a paid payment, by effect.
_SAMPLES: Final[Mapping[Effect, Mapping[str, object]]] = {
    Effect.AUTHORISED: {"state": "requires_capture", "phase": "authorised", "authorised_minor": 4900, "version": 1},
    Effect.PAID: {},
    Effect.SETTLED: {"state": "settled", "phase": "settled", "version": 3},
    Effect.FAILED: {"state": "failed", "phase": "failed", "failure_reason": "card_declined"},
    Effect.CANCELLED: {"state": "cancelled", "phase": "cancelled"},
    Effect.EXPIRED: {"state": "expired", "phase": "expired"},
    Effect.REFUNDED: {"state": "refunded", "phase": "refunded", "version": 3, "refunded_minor": 4900},
    Effect.REVERSED: {"state": "failed", "phase": "failed", "version": 3, "failure_reason": "charged back"},
    Effect.RESTORED: {"version": 4},
    Effect.CAPTURED: {"change_minor": 4900},
    Effect.REFUND_CHANGED: {"refunded_minor": 1900, "change_minor": 1900},
    Effect.DISPUTED: {"disputed_minor": 4900, "change_minor": 0},
    Effect.DISPUTE_WON: {"disputed_minor": 0, "change_minor": 0},
    Effect.DISPUTE_LOST: {"charged_back_minor": 4900, "change_minor": 4900, "disputed_minor": 0},
    Effect.REVIEW_REQUIRED: {"review": "amount_mismatch", "review_number": 1, "reason": "paid 45.00 instead of 49.00"},
    Effect.REVIEW_CLOSED: {"review": "amount_mismatch", "review_number": 1, "reason": "a person accepted the amount"},
}

#: Samples without money have no capture.
_UNCAPTURED: Final = frozenset({Effect.AUTHORISED, Effect.FAILED, Effect.CANCELLED, Effect.EXPIRED})

_PARTS: Final[Mapping[Effect, tuple[PartKind, PartStatus]]] = {
    Effect.CAPTURED: (PartKind.CAPTURE, PartStatus.DONE),
    Effect.REFUND_CHANGED: (PartKind.REFUND, PartStatus.DONE),
    Effect.DISPUTED: (PartKind.DISPUTE, PartStatus.PENDING),
    Effect.DISPUTE_WON: (PartKind.DISPUTE, PartStatus.UNDONE),
    Effect.DISPUTE_LOST: (PartKind.DISPUTE, PartStatus.DONE),
}


def sample(effect: str, now: datetime, effect_id: str) -> dict[str, Any]:
    """Return the body of a sample of the effect, as a shop would receive it.

    Raises ValueError for a name that no effect has.
    """
    if is_alarm(effect):
        data: dict[str, Any] = {field.name: field.example for field in ALARM_FIELDS}
        data |= {"alarm": effect.partition(".")[2], "since": now.isoformat()}
    else:
        kind = Effect(f"payment.{effect.partition('.')[2]}")
        data = {field.name: field.example for field in PAYMENT_FIELDS}
        data["captured_minor"] = None if kind in _UNCAPTURED else data["captured_minor"]
        data |= {"reason": f"a sample of {effect}", **_SAMPLES[kind]}
        if kind in _PARTS:
            part, status = _PARTS[kind]
            amount = data["change_minor"] or data["amount_minor"]
            data["part"] = {"kind": part.value, "name": "sample_1", "status": status.value, "amount_minor": amount}
            data["part"]["as_of"] = now.isoformat()
        if data["refunded_minor"] is not None:
            data["refunded"] = from_minor(data["refunded_minor"], "USD")
    return {"type": effect, "timestamp": now.isoformat(), "data": {**data, "effect_id": effect_id}}
