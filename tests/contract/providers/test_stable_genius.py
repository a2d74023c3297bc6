"""Stable Genius under the contract that every provider keeps, and its own documented scheme."""

import hmac
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from providers.contract import Delivery
from providers.signing import Key, KeyRing, Window
from providers.stable_genius.options import StableGeniusOptions
from providers.stable_genius.provider import StableGenius
from statemachine.phases import Source
from tests.contract.providers.provider_contract import CHECKS, Answered, Case, vectors

PROVIDER = StableGenius(StableGeniusOptions())
INTENT = b'{"id":"pi_1","object":"payment_intent","status":"%s","amount":4.50,"currency":"usd","merchant_id":"mer_1"}'


def sign(secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret, stamp.encode() + b"." + body, sha256).hexdigest()
    return {"X-StableGenius-Signature": f"sha256={digest}", "X-StableGenius-Timestamp": stamp}


def answered(status: str, source: Source = Source.POLL) -> Answered:
    return Answered(kind="payment_intent", ref="pi_1", status=status, body=INTENT % status.encode(), source=source)


CASE = Case(
    provider=PROVIDER,
    sign=sign,
    body=b'{"id":"evt_1","object":"event","type":"payment_intent.confirmed","data":{"id":"pi_1","status":"confirmed"}}',
    other_body=b'{"id":"evt_2","object":"event","type":"payment_intent.expired","data":{"id":"pi_1","status":"expired"}}',
    redelivered=b'{"id": "evt_1", "object": "event", "type": "payment_intent.confirmed", "attempt": 2, "data": {}}',
    answers=(
        answered("awaiting_payment", Source.CREATE),
        *(answered(status) for status in ("awaiting_payment", "confirmed", "settled", "expired", "cancelled")),
        answered("cancelled", Source.CANCEL),
    ),
    bodies=vectors("stable_genius"),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    """Stable Genius keeps the promise that the check's first line states."""
    check(CASE)


def test_a_signature_computed_elsewhere_is_accepted():
    """A vector computed with OpenSSL by the documented scheme verifies, at the second that it names."""
    delivery = Delivery(
        b'{"id":"evt_pi_conf_001"}',
        (
            (
                "x-stablegenius-signature",
                "sha256=d8c12d0efcf72022ffb0f647a17319f541c874ebe51d91828cf11f8a62ad333e",
            ),
            ("x-stablegenius-timestamp", "1711929612"),
        ),
    )
    at = datetime.fromtimestamp(1711929612, UTC)
    verified = PROVIDER.verify(delivery, KeyRing((Key("k1", b"whsec_test"),)), Window(), at)
    assert verified.key_id == "k1"
    assert verified.provider_time == at
    assert PROVIDER.delivery_key(delivery) == "evt_pi_conf_001"
