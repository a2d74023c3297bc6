"""The contract itself under test: an honest provider passes every check, and each broken one fails the named check."""

import hmac
import json
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256

import pytest
from msgspec import structs

from providers.contract import Capability, Provider, ProviderOptions, Reading, Verified
from providers.errors import DeliveryRejected
from statemachine.lifecycle import Lifecycle, State
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, Phase, Source
from tests.contract.providers import provider_contract
from tests.contract.providers.provider_contract import CHECKS, Answered, Case

LIFECYCLE = Lifecycle(
    name="honest.thing",
    source="made for this test",
    initial=("open",),
    states=(State("open", Phase.OPEN), State("done", Phase.PAID, terminal=True)),
    moves={"open": ("done",)},
)


class Honest(Provider):
    """A small provider that keeps every promise, in pieces that a fault can replace one at a time."""

    name = "honest"
    lifecycles = {"thing": LIFECYCLE}  # noqa: RUF012 - the contract's own declaration says ClassVar
    default_kind = "thing"

    def capabilities(self):
        return {Capability.ASK: frozenset({"thing"})}

    def verify(self, delivery, keys, window, now):
        digest, stamp = self.header(delivery, "x-sig"), self.header(delivery, "x-time")
        if digest is None:
            raise DeliveryRejected("signature_missing")
        if stamp is None:
            raise DeliveryRejected("timestamp_missing")
        stamped, given = self.stamped(stamp), self.given(digest)
        active = [key for key in keys.keys if self.is_active(key, now)]
        if not active:
            raise DeliveryRejected("no_active_key")
        text = self.signed(stamp, delivery.body)
        matching = [key for key in active if self.equal(hmac.digest(key.secret, text, sha256), given)]
        if not matching:
            raise DeliveryRejected("signature_wrong")
        self.check(window, stamped, now)
        return Verified(self.key_id(matching, keys), stamped)

    def header(self, delivery, name):
        return delivery.header(name)

    def stamped(self, stamp):
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
            raise DeliveryRejected("timestamp_malformed")
        return datetime.fromtimestamp(int(stamp), UTC)

    def given(self, digest):
        try:
            return bytes.fromhex(digest)
        except ValueError:
            raise DeliveryRejected("signature_malformed") from None

    def is_active(self, key, now):
        return key.is_active(now)

    def signed(self, stamp, body):
        return stamp.encode() + b"." + body

    def equal(self, ours, theirs):
        return hmac.compare_digest(ours, theirs)

    def check(self, window, stamped, now):
        window.check(stamped, now)

    def key_id(self, matching, _keys):
        return matching[0].id

    def delivery_key(self, delivery):
        found = self.decoded(delivery.body).get("id")
        if isinstance(found, str) and 0 < len(found) < 100 and found.isprintable():
            return found
        return None

    def decoded(self, body):
        try:
            value = json.loads(body, parse_float=Decimal)
        except (ValueError, RecursionError, ArithmeticError):
            return {}
        return value if isinstance(value, dict) else {}

    def parse(self, statement):
        if statement.source not in ANSWERS:
            return Reading(hints_account=True)
        told = self.decoded(statement.body)
        if statement.source is Source.LIST:
            return self.page(told.get("things"), statement)
        return self.thing(told, statement)

    def page(self, things, statement):
        if not isinstance(things, list):
            return Reading(unreadable="this is no page")
        if not things:
            return Reading(note="an empty page")
        return Reading(tuple(seen for thing in things for seen in self.on_a_page(thing, statement)))

    def on_a_page(self, thing, statement):
        reading = self.thing(thing if isinstance(thing, dict) else {}, statement)
        return reading.observations or (Observation(statement.source, kind="thing", provider_ref=self.name_of(thing)),)

    def name_of(self, thing):
        ref = thing.get("id") if isinstance(thing, dict) else None
        return ref if self.is_word(ref) else None

    def thing(self, told, statement):
        ref, status, amount = told.get("id"), told.get("status"), told.get("minor")
        if (
            "amount" in told
            or not self.is_word(ref)
            or not self.is_word(status)
            or not (statement.ref is None or ref == statement.ref)
        ):
            return Reading(unreadable="this is not what was asked for")
        return Reading(
            (
                Observation(
                    statement.source,
                    kind="thing",
                    provider_ref=ref,
                    status=status,
                    amount_minor=amount if type(amount) is int else None,
                    is_live=self.mode(told),
                    as_of=statement.received_at,
                ),
            )
        )

    def mode(self, told):
        live = told.get("live", told.get("livemode"))
        return live if live is not None else (None if "test" not in told else not told["test"])

    def is_word(self, value):
        return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()

    def client(self, account, transport, clock):
        raise AssertionError("these providers are never called")


class Hinting(Honest):
    """Honest too, with a list of events instead of things."""

    def page(self, things, statement):
        reading = super().page(things, statement)
        return reading if reading.unreadable or reading.note else Reading(hints_account=True)


class AcceptsAnything(Honest):
    def verify(self, delivery, keys, window, now):
        return Verified("present", datetime.fromtimestamp(int(delivery.header("x-time") or 0), UTC))


class ComparesPlainly(Honest):
    def equal(self, ours, theirs):
        return ours == theirs


class ComparesText(Honest):
    def equal(self, ours, theirs):
        return hmac.compare_digest(ours.hex(), theirs.hex())


class TakesAnyWellFormedSignature(Honest):
    def equal(self, ours, theirs):
        return len(ours) == len(theirs)


class IgnoresWhiteSpace(Honest):
    def signed(self, stamp, body):
        return super().signed(stamp, body.strip())


class ReadsBeforeItVerifies(Honest):
    def signed(self, stamp, body):
        return super().signed(stamp, json.dumps(json.loads(body)).encode())


class IgnoresTime(Honest):
    def check(self, window, stamped, now):
        pass


class IgnoresTheFuture(Honest):
    def check(self, window, stamped, now):
        window.check(min(stamped, now), now)


class DoesNotSignTime(Honest):
    def signed(self, stamp, body):
        return b"." + body


class LeaksValueError(Honest):
    def given(self, digest):
        return bytes.fromhex(digest)


class LeaksOverflow(Honest):
    def stamped(self, stamp):
        return datetime.fromtimestamp(float(stamp), UTC)


class TakesTheFirstHeader(Honest):
    def header(self, delivery, name):
        return next((value for key, value in delivery.headers if key == name), None)


class TakesTheLastHeader(Honest):
    def header(self, delivery, name):
        return dict(delivery.headers).get(name)


class ForgivesAMissingSignature(Honest):
    def verify(self, delivery, keys, window, now):
        if self.header(delivery, "x-sig") is None:
            return Verified("present")
        return super().verify(delivery, keys, window, now)


class KeepsOldKeys(Honest):
    def is_active(self, key, now):
        return True


class KnowsOneKeyOnly(Honest):
    def is_active(self, key, now):
        return key.is_active(now) and key.id != "old"


class RecordsTheFirstKey(Honest):
    def key_id(self, matching, keys):
        return keys.keys[0].id


class RecordsNoKey(Honest):
    def key_id(self, matching, keys):
        return ""


class WantsLowerCase(Honest):
    def given(self, digest):
        if digest != digest.lower():
            raise DeliveryRejected("signature_malformed")
        return super().given(digest)


class KeyOfTheRequest(Honest):
    def delivery_key(self, delivery):
        return sha256(repr(delivery).encode()).hexdigest()


class KeyOfNothing(Honest):
    def delivery_key(self, delivery):
        return "delivery"


class KeyLeaks(Honest):
    def delivery_key(self, delivery):
        return json.loads(delivery.body)["id"]


class KeyWithoutBound(Honest):
    def delivery_key(self, delivery):
        return delivery.body.decode("latin-1") or "empty"


class ParseLeaks(Honest):
    def decoded(self, body):
        return json.loads(body)


class ParseFloats(Honest):
    def parse(self, statement):
        amount = self.decoded(statement.body).get("minor", 0)
        reading = super().parse(statement)
        if reading.observations and isinstance(amount, Decimal):
            seen = reading.observations[0]
            seen = Observation(seen.source, kind=seen.kind, provider_ref=seen.provider_ref, amount_minor=float(amount))
            return Reading((seen,))
        return reading


class ParseSaysNothing(Honest):
    def parse(self, statement):
        reading = super().parse(statement)
        return Reading() if reading.unreadable else reading


class ParseSaysTwoThings(Honest):
    def parse(self, statement):
        reading = super().parse(statement)
        return Reading(reading.observations, hints_account=True, unreadable="?")


class ParseForgetsTheZone(Honest):
    def parse(self, statement):
        reading = super().parse(statement)
        told = tuple(structs.replace(seen, as_of=datetime(2026, 4, 1)) for seen in reading.observations)  # noqa: DTZ001
        return structs.replace(reading, observations=told)


class ParseForgetsTheKind(Honest):
    def parse(self, statement):
        reading = super().parse(statement)
        if not reading.observations:
            return reading
        seen = reading.observations[0]
        return Reading((Observation(seen.source, provider_ref=seen.provider_ref or "x", status=seen.status),))


class ParseForgetsTheMode(Honest):
    def mode(self, told):
        return None


class ParseTakesTestForLive(Honest):
    def mode(self, told):
        return True if "test" in told else super().mode(told)


class ParseTurnsStatesAround(Honest):
    def decoded(self, body):
        told = super().decoded(body)
        return {**told, "status": {"open": "done", "done": "open"}.get(str(told.get("status")), told.get("status"))}


class BelievesAnyAnswer(Honest):
    def parse(self, statement):
        told = self.decoded(statement.body)
        if statement.source not in ANSWERS or not self.is_word(told.get("id")) or not self.is_word(told.get("status")):
            return super().parse(statement)
        seen = Observation(
            statement.source,
            kind="thing",
            provider_ref=statement.ref or told["id"],
            status=told["status"],
            as_of=statement.received_at,
        )
        return Reading((seen,))


class PageStopsAtDamage(Honest):
    def page(self, things, statement):
        reading = super().page(things, statement)
        if any(seen.status is None for seen in reading.observations):
            return Reading(unreadable="something on this page is damaged")
        return reading


class PageForgetsDamage(Honest):
    def on_a_page(self, thing, statement):
        return self.thing(thing if isinstance(thing, dict) else {}, statement).observations


class PageGuesses(Honest):
    def on_a_page(self, thing, statement):
        return tuple(
            structs.replace(seen, status=seen.status or "done") for seen in super().on_a_page(thing, statement)
        )


class PageLosesTheLast(Honest):
    def page(self, things, statement):
        return super().page(things[:-1] if isinstance(things, list) and len(things) > 1 else things, statement)


class PageOfAnything(Honest):
    def page(self, things, statement):
        return super().page(things or [], statement)


class PageOfEventsIsBelieved(Hinting):
    def page(self, things, statement):
        return Honest.page(self, things, statement)


class NamesAnotherLifecycle(Honest):
    name = "somebody_else"


def sign(secret, body, at):
    stamp = str(int(at.timestamp()))
    return {"X-Sig": hmac.new(secret, stamp.encode() + b"." + body, sha256).hexdigest(), "X-Time": stamp}


def case_of(provider):
    return Case(
        page=lambda things: b'{"things":[' + b",".join(things) + b"]}",
        lists_events=issubclass(provider, Hinting),
        provider=provider(ProviderOptions()),
        sign=sign,
        body=b'{"id":"d1","status":"done"}',
        other_body=b'{"id":"d2","status":"done"}',
        redelivered=b'{"id": "d1", "again": true}',
        answers=tuple(
            Answered(kind="thing", ref="t1", status=status, body=b'{"id":"t1","status":"%s"}' % status.encode())
            for status in ("open", "done")
        ),
        bodies=(b'{"id":"asked-about","status":"open","minor":4.5}', b'{"id":"asked-about\\u0000","status":"open"}'),
    )


FAULTS = [
    (AcceptsAnything, "check_wrong_secret_is_rejected"),
    (ComparesPlainly, "check_comparison_is_constant_time"),
    (ComparesText, "check_comparison_is_constant_time"),
    (TakesAnyWellFormedSignature, "check_tampered_body_is_rejected"),
    (IgnoresWhiteSpace, "check_tampered_body_is_rejected"),
    (ReadsBeforeItVerifies, "check_empty_and_odd_bodies_are_accepted"),
    (IgnoresTime, "check_time_is_held_to_the_window"),
    (IgnoresTheFuture, "check_time_is_held_to_the_window"),
    (DoesNotSignTime, "check_time_is_held_to_the_window"),
    (LeaksValueError, "check_garbage_is_rejected"),
    (LeaksOverflow, "check_garbage_is_rejected"),
    (TakesTheFirstHeader, "check_contradicting_headers_are_rejected"),
    (TakesTheLastHeader, "check_contradicting_headers_are_rejected"),
    (ForgivesAMissingSignature, "check_missing_header_is_rejected"),
    (KeepsOldKeys, "check_no_active_key_rejects"),
    (KeepsOldKeys, "check_rotation_records_the_key_that_matched"),
    (KnowsOneKeyOnly, "check_rotation_records_the_key_that_matched"),
    (RecordsTheFirstKey, "check_rotation_records_the_key_that_matched"),
    (RecordsNoKey, "check_authentic_is_accepted"),
    (WantsLowerCase, "check_upper_case_hex_is_the_same_signature"),
    (KeyOfTheRequest, "check_delivery_key_names_what_was_delivered"),
    (KeyOfNothing, "check_delivery_key_names_what_was_delivered"),
    (KeyLeaks, "check_delivery_key_is_total"),
    (KeyWithoutBound, "check_delivery_key_is_total"),
    (ParseLeaks, "check_parse_is_total"),
    (ParseFloats, "check_parse_is_total"),
    (ParseSaysNothing, "check_parse_is_total"),
    (ParseSaysTwoThings, "check_parse_is_total"),
    (ParseForgetsTheZone, "check_parse_is_total"),
    (ParseForgetsTheKind, "check_answers_are_read_as_documented"),
    (ParseForgetsTheMode, "check_the_mode_of_the_money_is_told"),
    (ParseTakesTestForLive, "check_the_mode_of_the_money_is_told"),
    (ParseTurnsStatesAround, "check_answers_are_read_as_documented"),
    (BelievesAnyAnswer, "check_answer_about_another_is_not_believed"),
    (PageStopsAtDamage, "check_what_is_damaged_on_a_page_takes_nothing_with_it"),
    (PageForgetsDamage, "check_what_is_damaged_on_a_page_takes_nothing_with_it"),
    (PageGuesses, "check_what_is_damaged_on_a_page_takes_nothing_with_it"),
    (PageGuesses, "check_parse_is_total"),
    (PageLosesTheLast, "check_a_page_says_what_its_things_say"),
    (PageOfEventsIsBelieved, "check_a_page_says_what_its_things_say"),
    (PageOfAnything, "check_a_page_of_no_known_shape_is_unreadable"),
    (NamesAnotherLifecycle, "check_lifecycles_are_named"),
]


@pytest.mark.parametrize("provider", [Honest, Hinting])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_honest_provider_passes(check, provider):
    """No check asks for more than a right implementation gives."""
    check(case_of(provider))


@pytest.mark.parametrize(("provider", "check"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_is_found(provider, check):
    """A provider with one fault fails the check that is there for it."""
    with pytest.raises(AssertionError):
        getattr(provider_contract, check)(case_of(provider))


def test_every_check_has_bitten():
    """There is no check that has never been seen to fail."""
    assert {check.__name__ for check in CHECKS} == {check for _, check in FAULTS}
