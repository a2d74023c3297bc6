"""Tells stories of payments to a console's service: real messages, recorded, decided and delivered as in operation."""

import hmac
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from providers.contract import Delivery
from statemachine import own_statements
from storage import batches, inbox, outbox, payments, quarantine
from storage.ids import new_id
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, RejectedDelivery
from storage.types import OutboxStatus
from tests.support.builders import a_message, our_message
from tests.support.console import Served

#: The kind of each account that an ordinary payment has.
KINDS = {
    "alternative": "payment_request",
    "stable": "payment_intent",
    "payfield": "payin",
    "banked": "payment_session",
}


class Teller:
    """What happens to payments of the served accounts, one word after another."""

    def __init__(self, served: Served) -> None:
        self.service = served.service
        self.database = served.service.database
        self._worker = served.service.inbox_worker()

    @property
    def now(self) -> datetime:
        return self.service.clock()

    def wish(self, account: str, reference: str = "order-1", minor: int = 45_000, currency: str = "USD") -> str:
        """The merchant wants a payment; its id."""
        payment_id, kind = new_id(), KINDS[account]
        wanted = own_statements.CreateWanted(kind, reference, minor, currency)
        self.keep(our_message(wanted, about=payment_id, account=account, at=self.now))
        return payment_id

    def stable(self, status: str | None, ref: str = "pi_1", **intent: Any) -> str:
        """A signed webhook of Stable Genius; its message's id."""
        content = {"id": ref, "status": status, "amount": 450, "currency": "usd"} | intent
        body = json.dumps({"id": f"evt_{new_id()}", "type": f"payment_intent.{status}", "data": content}).encode()
        return self.push("stable", body)

    def push(self, account: str, body: bytes, **columns: Any) -> str:
        """A webhook with these bytes, with Stable Genius's signature; its message's id."""
        served = self.service.accounts[account]
        key = served.settings.keyring().keys[0]
        at = self.now
        stamp = str(int(at.timestamp()))
        signature = key.hmac(stamp.encode() + b"." + body).hex()
        headers = (
            ("content-type", "application/json"),
            ("x-stablegenius-timestamp", stamp),
            ("x-stablegenius-signature", f"sha256={signature}"),
        )
        signed = datetime.fromtimestamp(int(stamp), at.tzinfo)
        identity = served.provider.identity(Delivery(body, headers), at)
        given = {
            "headers": headers,
            "key_id": key.id,
            "provider_time": signed,
            "received_at": at,
            "delivery_key": identity,
            **columns,
        }
        return self.keep(a_message(account=account, body=body, **given))

    def banked(self, state: str, ref: str = "ps_1", **changes: Any) -> str:
        """A word of Banked's about a session; its message's id."""
        body = json.dumps({"id": ref, "state": state, "amount": 45_000, "currency": "GBP"} | changes).encode()
        return self.keep(a_message(account="banked", body=body, key_id="sandbox", received_at=self.now))

    def answer(self, account: str, body: Any, ref: str, *, source: str = "poll", about: str | None = None) -> str:
        """The provider's answer to a call of ours; its message's id."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.keep(
            a_message(
                account=account,
                source=source,
                body=raw,
                received_at=self.now,
                provider_time=self.now - timedelta(milliseconds=180),
                kind=KINDS[account],
                ref=None if source == "create" else ref,
                http_status=200,
                about=about,
            )
        )

    def keep(self, *messages: InboxMessage) -> str:
        """They are recorded and decided; the id of the last."""
        with self.database.write() as unit:
            inbox.record(unit, messages)
        while self._worker.step():
            pass
        return messages[-1].id

    def refuse(self, payment: Payment, reason: str = "signature_wrong", body: bytes = b'{"forged": true}') -> str:
        """A delivery to the payment's own URL is not believed; the id under which it is in quarantine."""
        rejected = RejectedDelivery(
            id="",
            account=payment.account,
            received_at=self.now,
            reason=reason,
            client="192.0.2.7",
            headers=[["x-stablegenius-signature", "sha256=00"], ["user-agent", "curl/8"]],
            body=body,
            kind=payment.kind,
            about=payment.id,
        )
        with self.database.write() as unit:
            quarantine.keep(unit, rejected, at_most=100)
        return rejected.id

    def deliver(self, payment_id: str, *outcomes: int | None, final: str = "failed") -> OutboxMessage:
        """The first effect that is owed is tried so often, with these HTTP statuses; the last attempt ends as said."""
        with self.database.read() as unit:
            owed = next(o for o in outbox.of_payment(unit, payment_id) if o.status == OutboxStatus.PENDING)
        for number, status in enumerate(outcomes, start=1):
            outcome = final if number == len(outcomes) else "failed"
            self._attempt(owed.id, status, outcome)
        with self.database.read() as unit:
            return outbox.get(unit, owed.id)

    def _attempt(self, owed_id: str, status: int | None, outcome: str) -> None:
        ends = {"delivered": OutboxStatus.DELIVERED, "dead": OutboxStatus.DEAD}.get(outcome, OutboxStatus.PENDING)
        now = self.now
        with self.database.write() as unit:
            claimed = outbox.claim_of_others(unit, now + timedelta(days=2), timedelta(seconds=1), [], 100)
            (owed,) = (message for message in claimed if message.id == owed_id)
            attempt = DeliveryAttempt(
                id="",
                outbox_id=owed.id,
                number=0,
                started_at=now,
                duration_ms=21,
                http_status=status,
                outcome=outcome,
                error=None if outcome == "delivered" else "the shop is <b>closed</b>",
            )
            outbox.settle(unit, owed, attempt, status=ends, next_attempt_at=now + timedelta(hours=1))

    def payment(self, payment_id: str) -> Payment:
        with self.database.read() as unit:
            return payments.get(unit, payment_id)

    def by_ref(self, account: str, ref: str) -> Payment:
        with self.database.read() as unit:
            kinds = self.service.accounts[account].provider.lifecycles
            (found,) = batches.by_ref(unit, [(account, kind, ref) for kind in kinds])
        return found

    def messages(self, payment_id: str) -> Sequence[InboxMessage]:
        with self.database.read() as unit:
            return inbox.concerning(unit, payment_id)


def digest(body: bytes, key: bytes) -> str:
    """An HMAC in hexadecimal."""
    return hmac.digest(key, body, "sha256").hex()
