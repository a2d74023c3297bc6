"""What can be wrong with one row, told from the row, its evidence and its neighbours. Pure: reads nothing else."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from audit.retained import Retained
from audit.trust import Seals
from providers.signing import Key
from statemachine.errors import IllegalMove
from statemachine.lifecycle import Lifecycle
from statemachine.machine import moves_of
from statemachine.phases import Outcome
from storage import hashing
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, Transition
from storage.types import InboxStatus, OutboxStatus

#: Where an outbox message may stand after a last try with this outcome; a redrive takes it from dead to pending.
_STATUSES_AFTER = {
    "": (OutboxStatus.PENDING,),
    "failed": (OutboxStatus.PENDING,),
    "delivered": (OutboxStatus.DELIVERED,),
    "dead": (OutboxStatus.DEAD, OutboxStatus.PENDING),
}


def entries(message: InboxMessage) -> list[dict[str, Any]]:
    """The message's outcomes, as far as they have the form of outcomes: a tampered row must not end the walk."""
    told: Any = message.outcomes
    kept: list[Any] = told if isinstance(told, list) else []
    return [entry for entry in kept if isinstance(entry, dict)]


def texts(entry: dict[str, Any], name: str) -> list[str]:
    """Those of an outcome's values that are texts; a tampered entry may hold anything."""
    found = entry.get(name)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


class Credentials:
    """Bearer credentials by the digest that is kept in their place; each digest is computed once."""

    def __init__(self) -> None:
        self._digests: dict[bytes, tuple[str, str]] = {}  #: by secret: the digest as it is kept, and the credential

    def shown(self, value: str, key: Key) -> str:
        """A kept header as it was received: a credential's digest stands for the credential that has that digest."""
        found = self._digests.get(key.secret)
        if found is None:
            bearer = f"Bearer {key.secret.decode('latin-1')}"
            found = f"sha256={sha256(bearer.encode('latin-1')).hexdigest()}", bearer
            self._digests[key.secret] = found
        return found[1] if value == found[0] else value


def outcome_problems(
    message: InboxMessage,
    existing: set[str],
    owed: set[tuple[str, str]],
    moved: set[tuple[str, str, str]],
    retained: Retained,
) -> Iterator[str]:
    """What a message's outcomes name and the database does not hold; `moved` are cause, payment and number."""
    for entry in entries(message):
        payment, number = entry.get("payment"), entry.get("transition")
        if payment is not None and payment not in existing:
            yield f"payment {payment}, which it was decided about, is gone"
        is_kept = number is not None and not retained.has_history(str(payment))
        if is_kept and (message.id, str(payment), str(number)) not in moved:
            yield f"transition {number} of payment {payment}, which it was decided to be, is gone"
        for owed_id in texts(entry, "outbox"):
            if (message.id, owed_id) not in owed:
                yield f"{owed_id}, which it made owed, is gone from the outbox"


def link_problems(
    payment: Payment,
    before: Transition | None,
    link: Transition,
    cause: InboxMessage | None,
    lifecycle: Lifecycle | None,
    retained: Retained,
    opened: Seals,
) -> Iterator[str]:
    """Yield what is wrong with one transition, after the one before and on its evidence."""
    changed = f"transition {link.number} of payment {payment.id} has changed"
    yield from _seal(opened, hashing.transition(link), link.hash, link.recorded_at, changed)
    if link.account != payment.account:
        yield f"transition {link.number} is of another account than payment {payment.id}"
    if before is None and link.number > 1 and retained.has_history(payment.id):
        retained.missed["transitions"] += link.number - 1  # the chain goes on after a partition that has gone
    else:
        yield from _chain_problems(before, link)
    if cause is None and retained.has_message(link.cause):
        retained.missed["messages"] += 1  # the digest stays, and the link's hash covers it
    elif cause is None:
        yield f"the evidence of transition {link.number} is gone"
    elif (link.evidence, link.source, payment.account) != (cause.envelope_digest, cause.source, cause.account):
        yield f"transition {link.number} does not rest on message {cause.id} as it is kept"
    elif not any(e.get("payment") == payment.id and e.get("transition") == link.number for e in entries(cause)):
        yield f"message {cause.id} was not decided to be transition {link.number}"
    if lifecycle is not None:
        yield from _walk_problems(link, lifecycle)


def _chain_problems(before: Transition | None, link: Transition) -> Iterator[str]:
    if link.prev_hash != (before.hash if before else ""):
        yield f"transition {link.number} does not follow the one before"
    if link.number != (before.number if before else 0) + 1:
        yield f"transition {link.number} comes after {before.number if before else 0}"
    if link.from_state != (before.to_state if before else None):
        yield f"transition {link.number} starts at {link.from_state}, where the payment was not"


def _walk_problems(link: Transition, lifecycle: Lifecycle) -> Iterator[str]:
    if not lifecycle.knows(link.to_state) or lifecycle.phase(link.to_state).value != link.phase:
        yield f"transition {link.number} leads to no known state and phase"
        return
    if link.forced:
        return
    state = link.from_state
    try:
        for target in (*(str(passed) for passed in link.via), link.to_state):
            state = moves_of(lifecycle).fire(state, target)
    except IllegalMove as illegal:
        yield f"transition {link.number} is no legal walk: {illegal.message}"


def payment_problems(payment: Payment, chain: list[Transition], retained: Retained, opened: Seals) -> Iterator[str]:
    """Yield what is wrong with a payment, rebuilt from its history."""
    yield from _seal(
        opened, hashing.payment(payment), payment.seal, payment.created_at, "what is kept of the payment has changed"
    )
    if not chain and payment.version and retained.has_history(payment.id):
        retained.missed["transitions"] += payment.version
        return
    if not chain:
        if (payment.version, payment.head_hash, payment.state) != (0, "", None):
            yield "its history is gone"
        return
    last = chain[-1]
    rebuilt = (last.number, last.hash, last.to_state, last.phase, last.recorded_at, last.as_of)
    kept = (
        payment.version,
        payment.head_hash,
        payment.state,
        payment.phase,
        payment.changed_at,
        payment.state_as_of,
    )
    if rebuilt != kept:
        yield f"its history ends at {last.to_state}, number {last.number}; it says {payment.state}, {payment.version}"


def outbox_problems(
    message: OutboxMessage,
    tries: list[DeliveryAttempt],
    cause: InboxMessage | None,
    retained: Retained,
    opened: Seals,
    redrives: int,
) -> Iterator[str]:
    """Yield what is wrong with what is owed, by its cause, its tries, and how often people made it due again."""
    content = hashing.owed(message.__dict__)
    yield from _seal(opened, content, message.seal, message.created_at, "what is owed, or its status, has changed")
    if cause is None and retained.has_message(message.cause):
        retained.missed["messages"] += 1
    elif cause is None or not any(
        entry.get("payment") == message.payment_id
        and message.effect in texts(entry, "effects")
        and message.id in texts(entry, "outbox")
        for entry in entries(cause)
    ):
        yield "no decision made it owed"
    elif cause.account != message.account:
        yield f"message {cause.id}, which made it owed, is of another account"
    tries = sorted(tries, key=lambda attempt: attempt.number)
    first = tries[0].number if tries else message.attempts + 1
    if first > 1 and retained.has_attempts(message.id):
        retained.missed["attempts"] += first - 1
        if not tries:
            return
    else:
        first = 1
    if [attempt.number for attempt in tries] != list(range(first, message.attempts + 1)):
        yield f"{len(tries)} tries are kept of {message.attempts}"
        return
    last = tries[-1] if tries else None
    given_up = sum(attempt.outcome == "dead" for attempt in tries)
    again = given_up - int(message.status == OutboxStatus.DEAD)
    if again > redrives:
        yield f"it was given up and made due again {again} times, and people did that {redrives} times"
    if message.status not in _STATUSES_AFTER.get(last.outcome if last else "", ()):
        yield f"its status {message.status} is not what its tries say"
    if message.last_error != (last.error if last else None):
        yield "its last error is not that of its last try"
    ended_at = last.started_at + timedelta(milliseconds=last.duration_ms) if last else None
    if message.delivered_at != (ended_at if message.status == OutboxStatus.DELIVERED else None):
        yield f"it was not delivered at {message.delivered_at}"


def attempt_problems(attempt: DeliveryAttempt, message: OutboxMessage, opened: Seals) -> Iterator[str]:
    """Yield what is wrong with one try to deliver an effect."""
    if attempt.account != message.account:
        yield f"try {attempt.number} is of another account than its effect"
    if not opened.has_none(attempt.seal, attempt.started_at):
        changed = f"what is kept of try {attempt.number} has changed"
        yield from _seal(opened, hashing.attempt(attempt), attempt.seal, attempt.started_at, changed)


def message_problems(message: InboxMessage, opened: Seals, retained: Retained) -> Iterator[str]:
    """Yield what is wrong with a message by itself, but for its signature."""
    if message.scrubbed_at is not None:
        retained.missed["bodies"] += 1
        if message.body:
            yield "it is said to be scrubbed, and has a body"
        if not retained.has_body(message.id, message.scrubbed_at):
            yield "its body is gone, and no run of retention took it"
    elif hashing.body_digest(message.body) != message.digest:
        yield "the body is not the one that was received"
    changed = "what was recorded with the message has changed"
    yield from _seal(opened, hashing.envelope(message), message.envelope_digest, message.received_at, changed)
    if message.status == InboxStatus.PENDING:
        if message.decision_digest is not None or message.decided_at is not None:
            yield "a decided message is pending again without a replay"
        elif not message.outcomes and (message.payment_id, message.decision, message.reason) != (None, None, None):
            yield "it is not decided yet, and says what was decided"
    else:
        content, at = hashing.decision(message), message.decided_at or message.received_at
        yield from _seal(opened, content, message.decision_digest, at, "the decision has changed")


def replay_problems(message: InboxMessage, replays: int) -> Iterator[str]:
    """A message that was decided for good is decided again only where a person has it replayed."""
    final: list[bool] = []  #: of each time that it was decided
    at: object = None
    for entry in entries(message):
        if not final or entry.get("at") != at:
            final.append(True)
            at = entry.get("at")
        final[-1] &= entry.get("outcome") != Outcome.PARKED
    again = sum(final) if message.status == InboxStatus.PENDING else sum(final[:-1])
    if again > replays:
        yield f"it was decided again {again} times, and people replayed it {replays} times"


def _seal(opened: Seals, content: bytes, seal: str | None, at: datetime, changed: str) -> Iterator[str]:
    problem = opened.problem(content, seal, at, changed)
    if problem is not None:
        yield problem
