"""Payfield under the providers' contract, by its documented bodies and an outside signer."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from providers.catalogue import Payfield
from providers.contract import Delivery, Statement
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Source
from storage import payment_polls
from tests.contract.providers.provider_contract import CHECKS, NOW, Answered, Case, vectors
from tests.support.builders import a_message
from tests.support.pipeline_world import World
from tests.support.worker_desk import Desk

VECTORS = Path(__file__).parents[3] / "providers" / "payfield" / "samples"


def vector(name: str) -> bytes:
    return (VECTORS / f"{name}.json").read_bytes()


def sign_hex(secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "X-Timestamp": stamp,
        "X-Signature": hmac.new(secret, stamp.encode() + body, hashlib.sha256).hexdigest(),
    }


def sign_base64(secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret, stamp.encode() + body, hashlib.sha256).digest()
    return {"X-Timestamp": stamp, "X-Signature": base64.b64encode(digest).decode()}


ANSWERS = (
    Answered(
        kind="payin",
        ref="PAY-BDT-001",
        status="pending",
        body=vector("answer_create_payin_bdt_new"),
        source=Source.CREATE,
    ),
    Answered(
        kind="payin", ref="PAY-ARS-002", status="pending", body=vector("answer_create_payin_ars"), source=Source.CREATE
    ),
    Answered(kind="payout", ref="OUT-INR-1", status="pending", body=vector("answer_create_payout_old")),
    Answered(kind="payin", ref="PAY-INR-2", status="success", body=vector("answer_create_payin_old_fraction")),
    Answered(kind="payout", ref="OUT-INR-1", status="success", body=vector("answer_get_payout")),
)

CASES = {
    "iso timestamps, hex": Case(
        provider=Payfield.with_options(default_kind="payin"),
        sign=sign_hex,
        body=vector("callback_payin_success"),
        other_body=vector("callback_payout_failed"),
        answers=ANSWERS,
        bodies=vectors("payfield"),
    ),
    "unix timestamps, base64": Case(
        provider=Payfield.with_options(digest_encoding="base64", default_kind="ask"),
        sign=sign_base64,
        body=vector("callback_payin_success"),
        other_body=vector("callback_payin_success").replace(b'"success"', b'"refunded"'),
        answers=ANSWERS,
        bodies=vectors("payfield"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, case):
    """Payfield keeps the promise that the check's first line states, in both of its notations."""
    check(case)


def test_verify_accepts_the_computed_callback_vector():
    """The signature is over timestamp and body with nothing between, as computed outside with another tool."""
    body = b'{"id":12345,"external_id":"PAY-BDT-001","status":"success"}'
    headers = (
        ("x-timestamp", "2025-12-05T10:15:00Z"),
        ("x-signature", "eb2eec24a0bc14487976b7e4775e41804f7a9d275521133f27f9511b3c248976"),
    )
    at = datetime(2025, 12, 5, 10, 15, tzinfo=UTC)
    keys = KeyRing((Key("k1", b"test_webhook_secret"),))

    verified = Payfield.with_options().verify(Delivery(body, headers), keys, Window(), at + timedelta(minutes=2))

    assert verified.key_id == "k1"
    assert verified.provider_time == at


def test_verify_signs_the_timestamp_as_it_was_sent():
    """The same instant written in another way is another text, and so another signature."""
    secret, body = b"a-webhook-secret", b"{}"
    for stamp in ("2026-04-01T10:00:00Z", "2026-04-01T10:00:00.000000Z", "2026-04-01T12:00:00+02:00", "1775037600"):
        signature = hmac.new(secret, stamp.encode() + body, hashlib.sha256).hexdigest()
        right = Delivery(body, (("x-timestamp", stamp), ("x-signature", signature)))
        other = Delivery(body, (("x-timestamp", "2026-04-01T10:00:00+00:00"), ("x-signature", signature)))
        provider, keys = Payfield.with_options(), KeyRing((Key("k1", secret),))

        assert provider.verify(right, keys, Window(), NOW).provider_time == NOW
        with pytest.raises(DeliveryRejected, match="signature wrong"):
            provider.verify(other, keys, Window(), NOW)


def test_delivery_key_tells_same_identity_with_other_content():
    """The same operation, status and time with another amount has the same key, so that storage can flag it."""
    provider = Payfield.with_options()
    body = vector("callback_payin_success")
    keys = {
        provider.delivery_key(Delivery(changed, ()))
        for changed in (body, body.replace(b"5000.00", b"9000.00"), body + b"\n")
    }

    assert len(keys) == 1


def test_delivery_key_keeps_operations_and_events_apart():
    """Another operation with the same merchant's id, another status or another time is another delivery."""
    provider = Payfield.with_options()
    body = vector("callback_payin_success")
    variants = (
        body,
        body.replace(b"12345", b"12346"),
        body.replace(b"success", b"refunded"),
        body.replace(b"10:15:00", b"10:16:00"),
        body.replace(b"PAY-BDT-001", b"PAY-BDT-002"),
    )

    assert len({provider.delivery_key(Delivery(each, ())) for each in variants}) == len(variants)


def test_a_callback_takes_its_kind_from_the_body_then_the_url_then_the_account():
    """A callback does not say payin or payout, so the more exact source wins."""
    body = vector("callback_payin_success")
    told = body.replace(b'{"id"', b'{"transaction_type":"payout","id"')

    def kind(content, used, default):
        statement = Statement(source=Source.CALLBACK, body=content, received_at=NOW, kind=used)
        return Payfield.with_options(default_kind=default).parse(statement).observations[0].kind

    assert kind(body, None, "payin") == "payin"
    assert kind(body, None, "payout") == "payout"
    assert kind(body, "payout", "payin") == "payout"
    assert kind(told, "payin", "payin") == "payout"


@pytest.fixture
def desk(template, tmp_path):
    world = World(template, tmp_path / "desk.db")
    yield Desk(world)
    world.close()


def test_a_payouts_callback_does_not_pay_for_a_payin_of_the_same_id(desk):
    """At the shop's own URL nothing tells the two apart, so a payin that alone is known here is asked about first."""
    desk.world.join("shop", Payfield.with_options(default_kind="ask"))
    body = vector("callback_payin_success")
    pending = body.replace(b'"success"', b'"pending"')
    desk.keep(a_message(account="shop", body=pending, kind="payin", received_at=desk.clock()))
    desk.work()
    with desk.database.write() as unit:
        payment_polls.set_next(unit, desk.payment("PAY-BDT-001").id, None)
    desk.keep(a_message(account="shop", body=body, delivery_key="of-the-payout", received_at=desk.clock()))
    desk.work()

    (payin,) = desk.payments()
    assert (payin.kind, payin.state, desk.poll_of(payin.id).next_poll_at) == ("payin", "pending", desk.clock())
    assert desk.effects(payin.id) == []


def test_an_operation_that_nobody_knew_is_asked_about(desk):
    """A callback that does not say which kind it is about has each of them asked about; the answer adopts."""
    member = desk.world.join("shop", Payfield.with_options(default_kind="ask"))
    desk.keep(a_message(account="shop", body=vector("callback_payin_success"), received_at=desk.clock()))
    desk.work()

    assert desk.payments() == []
    for _ in range(2):
        desk.world.run(desk.world.poller("shop").step())
        desk.clock.advance(1)
    assert member.client.asked == [("payin", "PAY-BDT-001"), ("payout", "PAY-BDT-001")]
