"""The worker's peer: a loop written by hand against the driver, which leaves the same rows.

`python -m tests.benchmarks.driver_loop URL` decodes the pending events of the inbox, a thousand in a transaction,
steps a table, and writes what the worker writes: transitions with their keyed chain, payments with their seal,
effects, and each message's decision with its digest. The audit finds no fault in what it leaves; a test holds that.

What it does not do: it knows one provider and two moves, no variants, reviews, hints or statements of our own; it logs
nothing, learns nothing of when to ask next, retries nothing, and a single bad event ends it.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hmac import digest
from typing import Any, Final

import msgspec
import uuid_utils

from tests.benchmarks import events
from tests.benchmarks.driver_sql import Asyncpg, Changes, Sqlite
from tests.benchmarks.going import go

BATCH: Final = 1000

_FIRST_EFFECT: Final = "payment.paid"
#: By state, and the state that is told: the phase that is entered.
_TABLE: Final = {(None, "awaiting_payment"): "open", ("awaiting_payment", "confirmed"): "paid"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = 3_600_000_000
_SEALING_KEY: Final = events.AUDIT_KEY.encode()
_encode: Final = msgspec.json.Encoder().encode


class _Metadata(msgspec.Struct):
    reference: str | None = None


class _Intent(msgspec.Struct):
    id: str
    status: str
    amount: Decimal
    currency: str
    metadata: _Metadata
    expires_at: datetime
    payment_address: str
    chain: str
    token: str
    merchant_id: str


class _Event(msgspec.Struct):
    created_at: datetime
    data: _Intent


_decode: Final = msgspec.json.Decoder(_Event).decode


def _micro(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _digest(content: object) -> str:
    """Names stand in the order of the alphabet already, so that nothing needs sorting."""
    return digest(_SEALING_KEY, _encode(content), "sha256").hex()


Claimed = tuple[str, str, _Event, str]


def decoded(body: bytes) -> tuple[str, _Event]:
    """The payment that an event is about, by the provider's name, and the event."""
    event = _decode(body)
    return event.data.id, event


def applied(claimed: Sequence[Claimed], known: dict[str, dict[str, Any]], now: int) -> Changes:
    """What a batch of (id, account, event, envelope digest) changes, given the payments that they name by their ref.

    Instants are microseconds since 1970, as the digests have them.
    """
    changes = Changes(now)
    moment = (_EPOCH + timedelta(microseconds=now)).isoformat()
    touched: dict[str, dict[str, Any]] = {}  #: known before
    moved: dict[str, dict[str, Any]] = {}  #: new, or changed in more than when it was heard of
    for message_id, account, event, evidence in claimed:
        told = event.data
        payment = known.get(told.id)
        if payment is None:
            payment = known[told.id] = _new(account, told, now)
            changes.new.append(payment)
        elif not payment["is_new"]:
            touched[payment["id"]] = payment
        poll = payment["poll"]
        state, payment_id = payment["state"], payment["id"]
        entry: dict[str, Any]
        if told.status == state:
            decision, reason = "unchanged", f"already {state}"
            entry = {"at": moment, "outcome": decision, "payment": payment_id, "reason": reason}
            entry["state_confirmed"] = True
        else:
            decision, reason = "advanced", f"{state or 'new'} -> {told.status}"
            phase = _TABLE[state, told.status]
            number, as_of = payment["version"] + 1, _micro(event.created_at)
            changes.transitions.append(
                _transition(payment, message_id, evidence, told.status, phase, as_of, now, reason)
            )
            payment["version"], payment["state"], payment["phase"] = number, told.status, phase
            payment["head_hash"] = changes.transitions[-1]["hash"]
            payment["changed_at"], payment["state_as_of"], poll["polls"] = now, as_of, 0
            moved[payment_id] = payment
            if number > 1:
                poll["poll_priority"], poll["next_poll_at"] = 4, now + _HOUR
            owed = []
            if phase == "paid":
                payment["counts"] = {_FIRST_EFFECT: 1}
                changes.owed.append(_owed(payment, message_id, reason, moment, now))
                changes.queued.append(_queued(changes.owed[-1]))
                owed.append(changes.owed[-1]["id"])
            about = {"payment": payment_id, "reason": reason, "state": told.status, "transition": number}
            effects = {"effects": [_FIRST_EFFECT], "outbox": owed} if owed else {}
            entry = {"at": moment, **effects, "outcome": decision, **about}
        facts, expires_at = _facts(told), _micro(told.expires_at)
        if (facts, expires_at) != (payment["facts"], payment["expires_at"]):
            payment["facts"], payment["expires_at"] = facts, expires_at
            moved[payment_id] = payment
        poll["heard_at"] = now
        poll["statements"] += 1
        changes.decisions.append(_decided(message_id, entry, poll["statements"], evidence, now))
    for payment in moved.values():
        payment["seal"] = _digest({name: payment.get(name) for name in _SEALED})  # it opens no reviews
    for payment in (*changes.new, *touched.values()):
        poll = payment["poll"]
        poll["seal"] = _digest({name: poll[name] for name in _SEALED_POLL})
    changes.changed = [payment for payment_id, payment in touched.items() if payment_id in moved]
    changes.polls = [payment["poll"] for payment in touched.values()]
    return changes


_SUMS: Final = ("authorised_minor", "captured_minor", "refunded_minor", "charged_back_minor", "disputed_minor")
_UNSAID: Final = (*_SUMS, "stated", "parts", "counts", "capture_by")


def _facts(told: _Intent) -> dict[str, str]:
    return {
        "chain": told.chain,
        "merchant_id": told.merchant_id,
        "payment_address": told.payment_address,
        "token": told.token,
    }


def _new(account: str, told: _Intent, now: int) -> dict[str, Any]:
    payment_id = str(uuid_utils.uuid7())
    return {
        "id": payment_id,
        "account": account,
        "kind": "payment_intent",
        "provider_ref": told.id,
        "reference": told.metadata.reference,
        "alias": told.payment_address,
        "state": None,
        "phase": "open",
        "amount_minor": int(told.amount.scaleb(2)),
        "currency": told.currency.upper(),
        "version": 0,
        **dict.fromkeys(_UNSAID),
        "state_as_of": None,
        "head_hash": "",
        "review": None,
        "review_note": None,
        "review_opened_at": None,
        "reviews": 0,
        "facts": {},
        "seal": "",
        "failure_reason": None,
        "expires_at": None,
        "return_url": None,
        "description": None,
        "merchant_metadata": None,
        "created_at": now,
        "changed_at": now,
        "poll": {
            "payment_id": payment_id,
            "account": account,
            "heard_at": now,
            "statements": 0,
            "next_poll_at": now,
            "poll_priority": 1,
            "asked_at": None,
            "polls": 0,
            "poll_error": None,
            "poll_failures": 0,
        },
        "is_new": True,
    }


def _transition(
    payment: dict[str, Any],
    cause: str,
    evidence: str,
    to_state: str,
    phase: str,
    as_of: int,
    now: int,
    reason: str,
) -> dict[str, Any]:
    made = {
        "actor": None,
        "as_of": as_of,
        "captured_minor": None,
        "cause": cause,
        "charged_back_minor": None,
        "evidence": evidence,
        "forced": False,
        "from_state": payment["state"],
        "id": str(uuid_utils.uuid7()),
        "number": payment["version"] + 1,
        "payment_id": payment["id"],
        "phase": phase,
        "prev_hash": payment["head_hash"],
        "reason": reason,
        "recorded_at": now,
        "refunded_minor": None,
        "source": "webhook",
        "to_state": to_state,
        "via": [],
    }
    made["hash"] = _digest(made)
    made["account"] = payment["account"]
    return made


def _owed(payment: dict[str, Any], cause: str, reason: str, moment: str, now: int) -> dict[str, Any]:
    names = ("account", "kind", "provider_ref", "reference", "amount_minor")
    data = {"payment": payment["id"], **{name: payment[name] for name in names}}
    minor = payment["amount_minor"]
    data |= {"amount": f"{minor // 100}.{minor % 100:02}", "currency": payment["currency"]}
    rest = (*_SUMS, "state", "phase", "version", "failure_reason", "review")
    data |= {name: payment[name] for name in rest}
    data |= {"occurrence": 0, "part": None, "change_minor": None, "reason": reason}
    made = {
        "account": payment["account"],
        "cause": cause,
        "created_at": now,
        "effect": _FIRST_EFFECT,
        "id": str(uuid_utils.uuid7()),
        "number": 1,
        "occurrence": 0,
        "payload": _encode({"type": _FIRST_EFFECT, "timestamp": moment, "data": data}).decode(),
        "payment_id": payment["id"],
        "sink": "shop",
        "webhook_id": None,
    }
    made["seal"] = _digest(made)
    return made


def _queued(owed: dict[str, Any]) -> dict[str, Any]:
    """An effect that waits for its first try."""
    status = {"attempts": 0, "delivered_at": None, "id": owed["id"], "last_error": None, "status": "pending"}
    copied = {name: owed[name] for name in ("payment_id", "account", "effect", "sink", "number")}
    return {**copied, "outbox_id": owed["id"], "next_attempt_at": owed["created_at"], "seal": _digest(status)}


def _decided(message_id: str, entry: dict[str, Any], statement: int, evidence: str, now: int) -> dict[str, Any]:
    columns = ("at", "outcome", "payment", "reason")
    made = {
        "at": now,
        "count": 1,
        "details": {name: value for name, value in entry.items() if name not in columns},
        "envelope_digest": evidence,
        "message_id": message_id,
        "number": 1,
        "outcome": entry["outcome"],
        "payment_id": entry["payment"],
        "reading": 1,
        "reason": entry["reason"],
        "statement": statement,
    }
    made["seal"] = _digest(made)
    return made


_SEALED: Final = (
    *("accepted", "account", "alias", "amount_minor", "authorised_minor", "capture_by", "captured_minor", "changed_at"),
    *("charged_back_minor", "counts", "created_at", "currency", "description", "disputed", "disputed_minor"),
    *("expires_at", "facts"),
    *(
        "failure_reason",
        "head_hash",
        "id",
        "kind",
        "merchant_metadata",
        "names",
        "parts",
        "phase",
        "provider_ref",
        "reference",
        "refunded_minor",
    ),
    *(
        "return_url",
        "review",
        "review_note",
        "review_opened_at",
        "reviews",
        "state",
        "state_as_of",
        "stated",
        "version",
    ),
)
_SEALED_POLL: Final = ("account", "heard_at", "payment_id", "statements")


def _step(database: Sqlite | Asyncpg) -> int:
    now = _micro(datetime.now(UTC))
    return database.batch(BATCH, decoded, lambda claimed, known: applied(claimed, known, now))


def _opened(url: str) -> Sqlite | Asyncpg:
    return Sqlite(url) if url.startswith("sqlite") else Asyncpg(url)


def empty(url: str) -> None:
    """Everything that is pending is applied."""
    with _opened(url) as database:
        while _step(database):
            pass


def main(url: str, limit: str) -> None:
    """Everything that is pending, when the word is given, or for so long; tells how many events a second."""
    with _opened(url) as database:
        go(lambda: _step(database), seconds=float(limit))


if __name__ == "__main__":
    main(*sys.argv[1:])
