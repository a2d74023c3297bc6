"""What is said of effects is what the worker writes, and every sample is an effect."""

import json
from datetime import UTC, datetime

import jsonschema_rs
import pytest

from providers.catalogue import PROVIDERS
from service import effect_schema
from service.effect_schema import effect_meanings, sample, schema_file
from statemachine.effects import DueEffect
from statemachine.own_statements import AccountAlarm
from statemachine.phases import Alarm, Effect
from statemachine.sums import Part, PartKind, PartStatus
from storage.ids import new_id
from storage.tables import Payment
from worker.effects import alarm_payload, payload

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
SCHEMA = jsonschema_rs.validator_for(schema_file())
SUBJECTS = tuple(sorted({life.subject for each in PROVIDERS.values() for life in each.lifecycles.values()}))


def written(part: Part | None = None, **more: object) -> dict[str, object]:
    """An effect as the worker writes it."""
    payment = Payment(id=new_id(), account="shop", kind="payin", phase="paid", created_at=NOW, changed_at=NOW, **more)
    return json.loads(payload("payment.paid", payment, DueEffect(Effect.PAID, 0, part), "why", NOW, effect_id=new_id()))


def fields(of: tuple[effect_schema.EffectField, ...]) -> list[str]:
    return [field.name for field in of]


def test_the_fields_are_those_that_the_worker_writes():
    """In the same order, so that the page reads as the body does."""
    body = written(Part(PartKind.REFUND, "re_1", PartStatus.DONE, 5, NOW))
    alarm = json.loads(alarm_payload("shop", AccountAlarm("silent", NOW.isoformat(), False, "why"), NOW))

    assert list(body) == list(alarm) == fields(effect_schema.ENVELOPE_FIELDS)
    assert list(body["data"]) == fields(effect_schema.PAYMENT_FIELDS)
    assert list(body["data"]["part"]) == fields(effect_schema.PART_FIELDS)
    assert list(alarm["data"]) == fields(effect_schema.ALARM_FIELDS)


@pytest.mark.parametrize(
    "body",
    [
        written(),
        written(Part(PartKind.DISPUTE, "dp_1", PartStatus.PENDING)),
        written(amount_minor=450, currency="USD", refunded_minor=450, reference="o-1", review="conflict", reviews=1),
        *(
            json.loads(alarm_payload("shop", AccountAlarm(alarm.value, NOW.isoformat(), True, "why", {"n": 1}), NOW))
            for alarm in Alarm
        ),
    ],
)
def test_what_the_worker_writes_fits_the_schema(body):
    assert [str(fault) for fault in SCHEMA.iter_errors(body)] == []


@pytest.mark.parametrize("effect", effect_meanings(SUBJECTS))
def test_every_sample_fits_the_schema(effect):
    body = sample(effect, NOW, new_id())

    assert [str(fault) for fault in SCHEMA.iter_errors(body)] == []
    assert body["type"] == effect


@pytest.mark.parametrize(
    "changed", [{"phase": "blessed"}, {"amount_minor": "49"}, {"review": "mood"}, {"part": {"kind": "refund"}}]
)
def test_the_schema_refuses_what_no_effect_says(changed):
    body = sample("payment.paid", NOW, new_id())
    body["data"] |= changed

    assert not SCHEMA.is_valid(body)


def test_every_effect_and_alarm_has_a_meaning():
    assert set(effect_meanings()) == {*(each.value for each in Effect), *(each.effect for each in Alarm)}


@pytest.mark.parametrize("unknown", ["payment.blessed", "account.cheerful", "paid", ""])
def test_there_is_no_sample_of_what_is_no_effect(unknown):
    with pytest.raises(ValueError, match="is not a valid"):
        sample(unknown, NOW, new_id())
