"""Standard Webhooks as the scheme of any page: both kinds of signature under the contract, and the official library."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import digest
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers.contract import Delivery, Statement
from providers.engine import page
from providers.engine.pointers import InvalidPage
from providers.engine.proof import prove
from providers.engine.provider import DeclaredProvider, declared
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Source
from tests.contract.providers.provider_contract import (
    CHECKS,
    NOW,
    Answered,
    Case,
    check_comparison_is_constant_time,
    rejected,
)

#: The pair that the official tests of the asymmetric scheme use: its seed is 32 bytes of 1.
PUBLIC = "whpk_iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
SHARED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

PAGE = f"""
[provider]
name = "acme"
title = "Acme"
source = "a test"
base_url = "https://api.example.com"
default_kind = "charge"
[money]
unit = "minor"
[signature]
mode = "standard_webhooks"
[delivery]
header = "webhook-id"
[events]
type = "/type"
[[events.rule]]
as = "state"
when = {{ "/type" = "~charge[.].*" }}
object = "/data"
kind = "charge"
at = "/timestamp"
[kind.charge]
id = "/id"
status = "/status"
amount = "/amount"
currency = "/currency"
initial = ["open"]
states = {{ open = "open", paid = "paid!" }}
moves = {{ open = ["paid"] }}
[[vector]]
source = "standard-webhooks/standard-webhooks@b2fa7b8, libraries/go/webhook_test.go"
key = "{SHARED}"
at = 1614265330
body = '{{"test": 2432232314}}'
[vector.headers]
webhook-id = "msg_p5jXN8AQM9LWM0D4loKWxJek"
webhook-timestamp = "1614265330"
webhook-signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
[[vector]]
source = "a library of Standard Webhooks for JavaScript, its test 'v1a: sign function works'"
key = "{PUBLIC}"
at = 1614265330
body = '{{"test": 2432232314}}'
[vector.headers]
webhook-id = "msg_p5jXN8AQM9LWM0D4loKWxJek"
webhook-timestamp = "1614265330"
webhook-signature = "v1a,Ykcu7AtGZGmZxFEH1Gaa2Nd7feY/CTuruoL4fqgnKwfbHU4DhemoVHZdvGfIvKvn4BIgwktLGGPGIr/i9nK7AA=="
"""


def acme(text: str = PAGE) -> DeclaredProvider:
    return declared(page.parse(text, "acme.toml", Path())).with_options()


def thing(number: int) -> dict[str, object]:
    return {"id": f"ch_{number}", "status": "paid", "amount": 1000, "currency": "EUR"}


def event(number: int) -> bytes:
    content = {"type": "charge.paid", "timestamp": "2026-04-01T09:59:58Z", "data": thing(number)}
    return json.dumps(content).encode()


def message_id(body: bytes) -> str:
    return f"msg_{sha256(body).hexdigest()[:20]}"


def headers(body: bytes, at: datetime, signature: str) -> dict[str, str]:
    return {
        "webhook-id": message_id(body),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }


def signed(body: bytes, at: datetime) -> bytes:
    return f"{message_id(body)}.{int(at.timestamp())}.".encode() + body


def sign_shared(secret: bytes, body: bytes, at: datetime) -> Mapping[str, str]:
    try:
        key = base64.b64decode(secret.removeprefix(b"whsec_") + b"==")
    except ValueError:  # the contract's spoilt secrets are not all base64
        key = secret
    return headers(body, at, f"v1,{base64.b64encode(digest(key, signed(body, at), 'sha256')).decode()}")


@dataclass
class Pairs:
    """Pairs of keys by their public half; what nobody knows is signed with another."""

    private: dict[bytes, Ed25519PrivateKey]

    @classmethod
    def made(cls, *seeds: int) -> "Pairs":
        return cls({public_of(pair): pair for pair in map(pair_of, seeds)})

    def sign(self, secret: bytes, body: bytes, at: datetime) -> Mapping[str, str]:
        raw = self.private.get(secret, pair_of(99)).sign(signed(body, at))
        return headers(body, at, f"v1a,{base64.b64encode(raw).decode()}")


def pair_of(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def public_of(pair: Ed25519PrivateKey) -> bytes:
    return b"whpk_" + base64.b64encode(pair.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def shared_of(letter: bytes) -> bytes:
    return b"whsec_" + base64.b64encode(letter * 24)


def case(*, is_shared: bool) -> Case:
    answer = Answered(kind="charge", ref="ch_1", status="paid", body=json.dumps(thing(1)).encode())
    ours = Case(
        provider=acme(),
        sign=sign_shared,
        body=event(1),
        other_body=event(2),
        bodies=(event(1), event(2)),
        answers=(answer,),
        secret=shared_of(b"a"),
        old_secret=shared_of(b"b"),
        foreign_secret=shared_of(b"c"),
    )
    if is_shared:
        return ours
    present, old, foreign = (public_of(pair_of(seed)) for seed in (1, 2, 3))
    return replace(ours, secret=present, old_secret=old, foreign_secret=foreign, sign=Pairs.made(1, 2, 3).sign)


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "public"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check, is_shared):
    """The scheme keeps the promise that the check's first line states."""
    if check is check_comparison_is_constant_time and not is_shared:
        pytest.skip("nothing secret is compared")
    check(case(is_shared=is_shared))


def test_the_published_signatures_are_accepted_and_no_change_of_them():
    """Both vectors, with another body, id, time and signature."""
    proof = prove(acme())
    assert (proof.faults, proof.vectors) == ((), 2)
    assert prove(acme(PAGE.replace("g0hM9S", "g0hM9T"))).faults
    assert prove(acme(PAGE.replace("Ykcu7A", "Ykcu7B"))).faults


def test_a_page_of_the_scheme_without_a_vector_is_not_proved():
    """The mode alone is no proof that the provider keeps to it."""
    text = PAGE[: PAGE.index("[[vector]]")]
    assert "no vector shows a signature made by somebody else" in prove(acme(text)).money_unproved


def delivery(body: bytes = b"{}", at: datetime = NOW, **changes: str) -> Delivery:
    told = {
        **sign_shared(SHARED.encode(), body, at),
        **{name.replace("_", "-"): text for name, text in changes.items()},
    }
    return Delivery(body, tuple(told.items()))


def verdict(given: Delivery, *secrets: str) -> str:
    keys = KeyRing(tuple(Key(secret[:8], secret.encode()) for secret in secrets or (SHARED,)))
    try:
        return acme().verify(given, keys, Window(), NOW).key_id
    except DeliveryRejected as rejection:
        return rejection.reason


def test_a_signature_of_one_kind_is_none_of_the_other():
    """The form of the key decides, and not what the header claims."""
    right = dict(delivery().headers)["webhook-signature"]
    assert verdict(delivery()) == SHARED[:8]
    assert verdict(delivery(webhook_signature=right.replace("v1,", "v1a,"))) == "signature_malformed"
    assert verdict(delivery(), PUBLIC) == "signature_wrong"
    public = Pairs.made(1).sign(PUBLIC.encode(), b"{}", NOW)["webhook-signature"]
    assert verdict(delivery(webhook_signature=public), PUBLIC) == PUBLIC[:8]
    assert verdict(delivery(webhook_signature=public)) == "signature_wrong"


def test_the_right_one_of_many_signatures_counts():
    """While keys are rotated there are several, of both kinds, of other versions, and some are malformed."""
    right = dict(delivery().headers)["webhook-signature"]
    others = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,x v1,*** v1a,YWJj nothing"
    assert verdict(delivery(webhook_signature=f"{others} {right}")) == SHARED[:8]
    assert verdict(delivery(webhook_signature=others)) == "signature_wrong"
    assert verdict(delivery(webhook_signature="v2,x v1,***")) == "signature_malformed"


@pytest.mark.parametrize("key", ["whsk_" + PUBLIC[5:], "whpk_YWJj", "whpk_***", "whsec_***", "whsec_"])
def test_what_is_no_key_verifies_nothing(key):
    """Least of all a private key, which is the provider's alone."""
    assert verdict(delivery(), key) == "no_active_key"
    assert verdict(delivery(), key, SHARED) == SHARED[:8]


def test_a_full_stop_in_the_id_moves_nothing():
    """Where an id could hold one, a signed body would begin later than it was signed."""
    at = str(int(NOW.timestamp()))
    body = f"{at}.{{}}".encode()
    moved = {**sign_shared(SHARED.encode(), body, NOW)}
    moved["webhook-id"] += f".{at}"
    assert verdict(Delivery(b"{}", tuple(moved.items()))) == "signature_malformed"


def test_headers_may_have_another_name_before_the_hyphen():
    """All three, and only these."""
    provider = acme(PAGE.replace('mode = "standard_webhooks"', 'mode = "standard_webhooks"\nheader = "Svix-Signature"'))
    told = tuple((name.replace("webhook-", "svix-"), text) for name, text in delivery().headers)
    keys = KeyRing((Key("k", SHARED.encode()),))
    assert provider.verify(Delivery(b"{}", told), keys, Window(), NOW).key_id == "k"
    scheme = type(provider).authentication
    assert scheme is not None
    assert (scheme.header, scheme.time_header) == ("svix-signature", "svix-timestamp")
    with pytest.raises(DeliveryRejected):
        provider.verify(delivery(), keys, Window(), NOW)
    with pytest.raises(InvalidPage, match="ends with -signature"):
        acme(PAGE.replace('mode = "standard_webhooks"', 'mode = "standard_webhooks"\nheader = "X-Sig"'))


# -- the official library


def now() -> datetime:
    """The library reads the system's clock itself."""
    return datetime.now(UTC).replace(microsecond=0)


BODIES = (event(1), '{"name": "Grüße, 東京"}'.encode(), b'{\n  "amount": 1.00\n}\n')


@pytest.mark.parametrize("body", BODIES)
def test_what_the_library_signs_is_accepted_and_nothing_else(body):
    """Body, id and time are those that were signed, or the delivery is rejected."""
    webhook = pytest.importorskip("standardwebhooks").Webhook(SHARED)
    at, keys = now(), KeyRing((Key("k", SHARED.encode()),))
    told = headers(body, at, webhook.sign(message_id(body), at, body.decode()))
    given = tuple(told.items())
    assert acme().verify(Delivery(body, given), keys, Window(), at).provider_time == at
    for wrong in (Delivery(body + b" ", given), Delivery(body, tuple({**told, "webhook-id": "msg_2"}.items()))):
        with pytest.raises(DeliveryRejected):
            acme().verify(wrong, keys, Window(), at)


@pytest.mark.parametrize("body", BODIES)
def test_the_library_and_the_page_refuse_alike(body):
    """What is signed as the scheme says, and spoilt: old, another body, another key."""
    library = pytest.importorskip("standardwebhooks")
    webhook, at, keys = library.Webhook(SHARED), now(), KeyRing((Key("k", SHARED.encode()),))

    def is_accepted(given: bytes, told: Mapping[str, str]) -> tuple[bool, bool]:
        try:
            webhook.verify(given, dict(told), json_parse=False)
            theirs = True
        except library.WebhookVerificationError:
            theirs = False
        try:
            acme().verify(Delivery(given, tuple(told.items())), keys, Window(), at)
        except DeliveryRejected:
            return theirs, False
        return theirs, True

    assert is_accepted(body, sign_shared(SHARED.encode(), body, at)) == (True, True)
    assert is_accepted(body, sign_shared(SHARED.encode(), body, at - timedelta(hours=1))) == (False, False)
    assert is_accepted(body + b" ", sign_shared(SHARED.encode(), body, at)) == (False, False)
    assert is_accepted(body, sign_shared(shared_of(b"a"), body, at)) == (False, False)


def test_an_event_is_read_as_the_page_says():
    """The id of the message names what was delivered, however often."""
    given = delivery(event(1))
    assert acme().delivery_key(given) == message_id(event(1))
    (seen,) = acme().parse(Statement(Source.WEBHOOK, given.body, NOW)).observations
    assert (seen.provider_ref, seen.status, seen.amount_minor) == ("ch_1", "paid", 1000)
    assert rejected(case(is_shared=True), given) == "signature_wrong"
