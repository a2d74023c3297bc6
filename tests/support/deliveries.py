"""Deliveries as the four providers send them, signed with the standard library only: nothing here is of ours."""

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

#: By account. Each account has two keys, as in the middle of a rotation.
KEYS: Mapping[str, str] = {
    "ap": "alternative-payments-secret-0001",
    "sg": "stable-genius-secret-000000000001",
    "pf": "payfield-secret-0000000000000001",
    "bk": "banked-secret-000000000000000001",
}
OLD_KEYS: Mapping[str, str] = {account: f"{secret}-before" for account, secret in KEYS.items()}
PROVIDERS: Mapping[str, str] = {
    "ap": "alternative_payments",
    "sg": "stable_genius",
    "pf": "payfield",
    "bk": "banked",
}
SIGNED = ("sg", "pf", "bk")  # Alternative Payments signs nothing: it sends its secret

_numbers: Iterator[int] = itertools.count(1)


@dataclass(frozen=True)
class Signed:
    """One request to an account's URL."""

    account: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    payment: str = ""

    @property
    def path(self) -> str:
        """Where it goes."""
        return f"/webhooks/{self.account}"

    def without(self, name: str) -> "Signed":
        """The same without one header."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].lower() != name))

    def changed(self, name: str, change: Callable[[str], str]) -> "Signed":
        """The same with one header changed."""
        return replace(
            self, headers=tuple((key, change(value) if key.lower() == name else value) for key, value in self.headers)
        )


SIGNATURE_HEADER: Mapping[str, str] = {
    "ap": "authorization",
    "sg": "x-stablegenius-signature",
    "pf": "x-signature",
    "bk": "banked-signature",
}


def sign(account: str, body: bytes, *, secret: str | None = None, at: float | None = None) -> Signed:
    """The body as the account's provider would send it."""
    key = (secret or KEYS[account]).encode()
    seconds = str(int(time.time() if at is None else at))
    headers = [("Content-Type", "application/json"), ("User-Agent", f"{PROVIDERS[account]}/1")]
    if account == "ap":
        headers.append(("Authorization", f"Bearer {key.decode()}"))
    elif account == "sg":
        digest = hmac.new(key, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
        headers += [("X-StableGenius-Timestamp", seconds), ("X-StableGenius-Signature", f"sha256={digest}")]
    elif account == "pf":
        stamp = datetime.fromtimestamp(int(seconds), UTC).isoformat()
        digest = hmac.new(key, stamp.encode() + body, hashlib.sha256).hexdigest()
        headers += [("X-Timestamp", stamp), ("X-Signature", digest)]
    else:
        digest = hmac.new(key, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
        headers.append(("Banked-Signature", f"{seconds}.{digest}"))
    return Signed(account, body, tuple(headers))


def event(account: str, **changes: object) -> Signed:
    """A signed event about a payment of its own; `changes` replace parts of the body."""
    number = next(_numbers)
    content, payment = _content(account, number)
    content.update(changes)
    return replace(sign(account, json.dumps(content).encode()), payment=payment)


def unused(account: str) -> Signed:
    """An authentic event of a kind that we do not use."""
    number = next(_numbers)
    content: dict[str, object] = {
        "ap": {"topic": "customer_created", "data": {"name": f"n{number}"}},
        "sg": {"id": f"evt_{number}", "type": "merchant.updated", "data": {}},
        "pf": {
            "id": number,
            "external_id": f"x{number}",
            "status": "success",
            "transaction_type": "dance",
            "updated_at": "2026-01-01T00:00:00Z",
        },
        "bk": {"id": f"m-{number}", "webhook_type": "mandate", "webhook_event": "mandate_active", "state": "active"},
    }[account]
    return sign(account, json.dumps(content).encode())


def _content(account: str, number: int) -> tuple[dict[str, object], str]:
    moment = datetime.now(UTC).isoformat()
    payment = f"{account}-{number}"
    if account == "ap":
        return {"topic": "payment_succeeded", "data": {"id": payment, "status": "succeeded"}}, payment
    if account == "sg":
        payment = f"pi_{number:08x}"
        data = {"id": payment, "status": "confirmed", "amount": 4.5, "currency": "usd"}
        return {
            "id": f"evt_{number:08x}",
            "type": "payment_intent.confirmed",
            "created_at": moment,
            "data": data,
        }, payment
    if account == "pf":
        return {
            "id": number,
            "external_id": payment,
            "status": "success",
            "amount": "50.00",
            "currency": "BDT",
            "updated_at": moment,
        }, payment
    return {
        "id": payment,
        "amount": 400,
        "currency": "GBP",
        "state": "sent",
        "webhook_event": "payment_sent",
        "webhook_type": "payment_session",
    }, payment
