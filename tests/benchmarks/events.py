"""What is delivered: signed events as a provider sends them, every one with a random id of its own.

Each payment has three events, as Stable Genius tells them: it awaits payment (a transition), it still does (no
transition), it is confirmed (a transition, and an effect is owed). Signed with the standard library alone.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from hmac import digest
from random import Random
from typing import Final

ACCOUNT: Final = "sg"
KEY: Final = "stable-genius-secret-000000000001"
_KEY: Final = KEY.encode()
#: Key of the seals over rows.
AUDIT_KEY: Final = "audit-key-for-benchmarks-000001"

#: Bytes of the bodies, in rotation.
SIZES: Final = (600, 900, 1200)

#: By the names of the three events of a payment.
_STEPS: Final = (
    ("payment_intent.created", "awaiting_payment"),
    ("payment_intent.updated", "awaiting_payment"),
    ("payment_intent.confirmed", "confirmed"),
)

#: How a delivery says who sent it: Stable Genius's way, Stripe's, and the digest of the body alone.
DIALECTS: Final = ("stable_genius", "stripe", "body")


def bodies(number: int, *, per_payment: int = 3, sizes: Sequence[int] = SIZES, seed: str | None = None) -> list[bytes]:
    """So many events. `per_payment` = 1 tells each payment's first alone; a large one tells much of one payment.

    With a seed they are of the payments of which `payments` tells.
    """
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ids = iter(_random_ids(2 * number, seed))
    made, payment = [], ""
    for count in range(number):
        told = count % per_payment
        if told == 0:
            payment = next(ids)
        name, status = _STEPS[min(told, 1) if per_payment != 3 else told]
        made.append(_body(next(ids), payment, name, status, moment, sizes[count % len(sizes)]))
    return made


def payments(number: int, seed: str) -> list[str]:
    """The provider's names of the payments of which that many events with this seed tell."""
    return [json.loads(body)["data"]["id"] for body in bodies(number, seed=seed)[::3]]


def _body(event: str, payment: str, name: str, status: str, moment: str, size: int) -> bytes:
    text = (
        f'{{"id":"evt_{event}","object":"event","type":"{name}","created_at":"{moment}","livemode":false,'
        f'"api_version":"2026-04-01","data":{{"id":"pi_{payment}","object":"payment_intent","status":"{status}",'
        f'"amount":4.5,"currency":"usd","merchant_id":"mer_000000000001","chain":"base","token":"USDC",'
        f'"payment_address":"0x{payment}0000000000000000","expires_at":"2099-01-01T00:00:00Z",'
        f'"metadata":{{"reference":"order-{payment[:12]}","note":""}}}}}}'
    )
    filled = text.replace('"note":""', f'"note":"{"x" * (size - len(text))}"')
    return filled.encode()


def topups(number: int) -> list[bytes]:
    """So many events of Stripe's, of a type whose object dj-stripe does not look up."""
    made = []
    ids, now = iter(_random_ids(2 * number)), int(time.time())
    for count in range(number):
        text = (
            f'{{"id":"evt_{next(ids)}","object":"event","api_version":"2024-06-20","created":{now},"livemode":false,'
            f'"pending_webhooks":1,"request":{{"id":null,"idempotency_key":null}},"type":"topup.created",'
            f'"data":{{"object":{{"id":"tu_{next(ids)}","object":"topup","amount":450,"currency":"usd",'
            f'"status":"pending","livemode":false,"description":""}}}}}}'
        )
        fill = "x" * (SIZES[count % len(SIZES)] - len(text))
        made.append(text.replace('"description":""', f'"description":"{fill}"').encode())
    return made


def _random_ids(number: int, seed: str | None = None) -> Iterator[str]:
    text = (os.urandom(12 * number) if seed is None else Random(seed).randbytes(12 * number)).hex()
    return (text[start : start + 24] for start in range(0, len(text), 24))


def headers(body: bytes, dialect: str = "stable_genius") -> list[tuple[str, str]]:
    """What says that the body is authentic, as of now."""
    stamp = str(int(time.time()))
    if dialect == "stable_genius":
        signature = digest(_KEY, f"{stamp}.".encode() + body, "sha256").hex()
        return [("X-StableGenius-Timestamp", stamp), ("X-StableGenius-Signature", f"sha256={signature}")]
    if dialect == "stripe":
        signature = digest(_KEY, f"{stamp}.".encode() + body, "sha256").hex()
        return [("Stripe-Signature", f"t={stamp},v1={signature}"), ("X-Delivery", stamp)]
    return [("X-Signature", f"sha256={digest(_KEY, body, 'sha256').hex()}"), ("X-Delivery", stamp)]


def request(path: str, body: bytes, dialect: str = "stable_genius") -> bytes:
    """The whole request, with eight headers."""
    (one, first), (two, second) = headers(body, dialect)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: pay.shop.example\r\nUser-Agent: provider/1\r\nAccept: */*\r\n"
        f"Accept-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{one}: {first}\r\n{two}: {second}\r\n\r\n"
    )
    return head.encode() + body
