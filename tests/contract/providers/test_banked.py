"""Banked under the providers' contract, by its documented bodies and an outside signer."""

import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

import pytest

from providers.banked.options import BankedOptions
from providers.banked.provider import Banked
from providers.contract import Delivery
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Source
from tests.contract.providers.provider_contract import CHECKS, Answered, Case, vectors

VECTORS = Path(__file__).parent / "vectors" / "banked"
SESSION = "a6941fd1-f5cb-4948-814d-df03540149fb"
PAYIN = "5c1cbd2e-90a1-4a36-9a5d-3c2b1d0e0001"
REFUND = "7d1cbd2e-90a1-4a36-9a5d-3c2b1d0e0002"


def vector(name: str) -> bytes:
    return (VECTORS / f"{name}.json").read_bytes()


def sign(secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"banked-signature": f"{stamp}.{digest}"}


ANSWERS = (
    Answered(kind="payment_session", ref=SESSION, status="awaiting_provider", body=vector("answer_session")),
    Answered(
        kind="payment_session",
        ref=SESSION,
        status="awaiting_provider",
        body=vector("answer_session"),
        source=Source.CREATE,
    ),
    Answered(kind="payin", ref=PAYIN, status="AWAITING_AUTHORIZATION", body=vector("answer_payin")),
    Answered(kind="refund", ref=REFUND, status="awaiting_payment", body=vector("answer_refund")),
    Answered(
        kind="refund", ref=REFUND, status="externally processed", body=vector("answer_refund_processed_elsewhere")
    ),
)

CASES = {
    "v2": Case(
        provider=Banked(BankedOptions()),
        page=lambda things: b"[" + b",".join(things) + b"]",
        sign=sign,
        body=vector("v2_payment_sent"),
        other_body=vector("v2_payment_failed"),
        answers=ANSWERS,
        bodies=vectors("banked"),
    ),
    "v3": Case(
        provider=Banked(BankedOptions(auth="oauth", scope="app", webhook_version="v3")),
        page=lambda things: b'{"data":[' + b",".join(things) + b"]}",
        sign=sign,
        body=vector("v3_payment_sent"),
        other_body=vector("v3_refund_sent"),
        answers=ANSWERS,
        bodies=vectors("banked"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, case):
    """Banked keeps the promise that the check's first line states, in both of its generations."""
    check(case)


def test_verify_takes_a_key_that_looks_like_hex_as_its_literal_text():
    """The signature made with the SDK fixture's key, as computed outside, is accepted."""
    key = b"f063a7029d6b959d8cc11e23148a302929da113a6b0671238ab9d1bcfb63645a"
    signature = "cba6e90da3fad4c2e6044fe4508b655822eb2769c2c69a8885c439fcc96d6002"
    body = b'{"id":"a6941fd1-f5cb-4948-814d-df03540149fb","state":"sent"}'
    at = datetime.fromtimestamp(1572540334, UTC)
    delivery = Delivery(body, (("banked-signature", f"1572540334.{signature}"),))

    verified = Banked(BankedOptions()).verify(delivery, KeyRing((Key("sdk", key),)), Window(), at)

    assert verified.key_id == "sdk"
    assert verified.provider_time == at


def test_delivery_key_of_v2_names_resource_event_and_type():
    """A v2 body with other content has the same key; another event, resource or type has another."""
    provider, body = Banked(BankedOptions()), vector("v2_payment_sent")

    def key(content):
        return provider.delivery_key(Delivery(content, ()))

    assert key(body) == key(body.replace(b'"amount":400', b'"amount":999'))
    others = (
        body.replace(b"payment_sent", b"payment_pending"),
        body.replace(SESSION.encode(), b"00000000-f5cb-4948-814d-df03540149fb"),
        body.replace(b'"webook_type":"payment_session"', b'"webook_type":"payout"'),
        body.replace(b"webhook_event", b"webhook_other"),
    )
    assert len({key(body), *map(key, others)}) == 5


def test_delivery_key_of_v3_is_the_event_id_alone():
    """Two v3 events of one payin with the same status are two deliveries, and one event is one."""
    provider, body = Banked(BankedOptions()), vector("v3_payment_sent")
    other = body.replace(b"b7e12cd3-8a1f-4e90-a234-9f105dc3a8b2", b"00000000-8a1f-4e90-a234-9f105dc3a8b2")
    altered = body.replace(b'"amount":400', b'"amount":999')

    keys = [provider.delivery_key(Delivery(each, ())) for each in (body, altered, other)]

    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


def test_delivery_key_tells_the_redacted_twin_of_an_event():
    """An account that takes an event in full and redacted gets two deliveries, not one with two contents."""
    provider, body = Banked(BankedOptions()), vector("v2_payment_sent")
    twin = body.replace(b'"webook_type"', b'"webhook_type"')

    assert provider.delivery_key(Delivery(body, ())) != provider.delivery_key(Delivery(twin, ()))
