"""Pure checks of single rows against their evidence and neighbours."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Self

from audit.retention import RetentionRecords
from audit.seals import SealVerifier
from providers.signing import Key
from statemachine.errors import IllegalMove
from statemachine.lifecycle import Lifecycle
from statemachine.machine import moves_of
from statemachine.phases import BY_WEIGHT, Outcome, Phase
from statemachine.sums import MOVED_SUMS, Sums, is_refund_of_part, phase_with_sums
from storage import hashing, inbox
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, PaymentPoll, Transition
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.types import InboxStatus, OutboxStatus

#: Statuses of an outbox message by the outcome of its last attempt; a redrive takes it from dead to pending.
_STATUSES_AFTER = {
    "": (OutboxStatus.PENDING,),
    "failed": (OutboxStatus.PENDING,),
    "delivered": (OutboxStatus.DELIVERED,),
    "dead": (OutboxStatus.DEAD, OutboxStatus.PENDING),
}


@dataclass(slots=True)
class ExistingRows:
    """Identities of rows that outcomes may name, as the database holds them."""

    payments: set[str]
    owed: set[tuple[str, str]]  #: outbox messages by cause and id
    moved: set[tuple[str, str, str]]  #: transitions by cause, payment and number


def entries(message: InboxMessage) -> list[dict[str, Any]]:
    """Return the outcomes that are objects; a tampered row may hold anything."""
    outcomes: Any = message.outcomes
    kept: list[Any] = outcomes if isinstance(outcomes, list) else []
    return [entry for entry in kept if isinstance(entry, dict)]


def texts(entry: dict[str, Any], name: str) -> list[str]:
    """Return the strings of an outcome's list; a tampered entry may hold anything."""
    found = entry.get(name)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class MessageEvidence:
    """A message, with the rows of what was decided about it, and of what waits."""

    message: InboxMessage  #: as it is read, with its outcomes
    decisions: list[RecordedDecision]  #: in order of their numbers
    queued: QueuedMessage | None

    @classmethod
    def of(cls, message: InboxMessage, decisions: list[RecordedDecision], queued: QueuedMessage | None) -> Self:
        """Add to the message what the rows beside it say."""
        decisions.sort(key=lambda row: (row.reading, row.number))
        message.outcomes = [inbox.entry(row) for row in decisions]
        message.status = InboxStatus.DECIDED.value if queued is None else queued.status
        found = cls(message, decisions, queued)
        weights = [BY_WEIGHT.index(Outcome(entry["outcome"])) for entry in found.newest]
        message.decision = BY_WEIGHT[min(weights)].value if weights else None
        about = [row for row in decisions if row.payment_id is not None]
        message.payment_id = next((row.payment_id for row in about if row.reading == about[-1].reading), None)
        return found

    @property
    def newest(self) -> list[dict[str, Any]]:
        """The outcomes of the last reading."""
        pairs = zip(self.decisions, self.message.outcomes, strict=True)
        return [entry for row, entry in pairs if row.reading == self.decisions[-1].reading]


class BearerCredentials:
    """Bearer credentials by the digest that is kept in their place."""

    def __init__(self) -> None:
        self._digests: dict[bytes, tuple[str, str]] = {}  #: by secret: the digest as it is kept, and the credential

    def restore(self, value: str, key: Key) -> str:
        """Return a header as it was received: the credential in place of its kept digest."""
        found = self._digests.get(key.secret)
        if found is None:
            bearer = f"Bearer {key.secret.decode('latin-1')}"
            found = f"sha256={sha256(bearer.encode('latin-1')).hexdigest()}", bearer
            self._digests[key.secret] = found
        return found[1] if value == found[0] else value


def outcome_problems(message: InboxMessage, existing: ExistingRows, retention: RetentionRecords) -> Iterator[str]:
    """Yield what a message's outcomes name and the database does not hold."""
    for entry in entries(message):
        payment, number = entry.get("payment"), entry.get("transition")
        if payment is not None and payment not in existing.payments:
            yield f"payment {payment}, which it was decided about, is gone"
        is_kept = number is not None and not retention.has_history(str(payment))
        if is_kept and (message.id, str(payment), str(number)) not in existing.moved:
            yield f"transition {number} of payment {payment}, which it was decided to be, is gone"
        for owed_id in texts(entry, "outbox"):
            if (message.id, owed_id) not in existing.owed:
                yield f"{owed_id}, which it made owed, is gone from the outbox"


def link_problems(
    payment: Payment,
    before: Transition | None,
    link: Transition,
    cause: InboxMessage | None,
    lifecycle: Lifecycle | None,
    retention: RetentionRecords,
    seals: SealVerifier,
) -> Iterator[str]:
    """Yield what is wrong with a transition, given the one before and its evidence."""
    changed = f"transition {link.number} of payment {payment.id} has changed"
    yield from _seal(seals, hashing.transition(link), link.hash, link.recorded_at, changed)
    if link.account != payment.account:
        yield f"transition {link.number} is of another account than payment {payment.id}"
    if before is None and link.number > 1 and retention.has_history(payment.id):
        retention.missed["transitions"] += link.number - 1  # the chain goes on after a partition that has gone
    else:
        yield from _chain_problems(before, link)
    if cause is None and retention.has_message(link.cause):
        retention.missed["messages"] += 1  # the digest stays, and the link's hash covers it
    elif cause is None:
        yield f"the evidence of transition {link.number} is gone"
    elif (link.evidence, link.source, payment.account) != (cause.envelope_digest, cause.source, cause.account):
        yield f"transition {link.number} does not rest on message {cause.id} as it is kept"
    elif not any(e.get("payment") == payment.id and e.get("transition") == link.number for e in entries(cause)):
        yield f"message {cause.id} was not decided to be transition {link.number}"
    if lifecycle is not None:
        yield from _move_problems(payment, before, link, lifecycle)


def _chain_problems(before: Transition | None, link: Transition) -> Iterator[str]:
    if link.prev_hash != (before.hash if before else ""):
        yield f"transition {link.number} does not follow the one before"
    if link.number != (before.number if before else 0) + 1:
        yield f"transition {link.number} comes after {before.number if before else 0}"
    if link.from_state != (before.to_state if before else None):
        yield f"transition {link.number} starts at {link.from_state}, where the payment was not"


def _move_problems(
    payment: Payment, before: Transition | None, link: Transition, lifecycle: Lifecycle
) -> Iterator[str]:
    if not lifecycle.knows(link.to_state) or not _is_phase_of(payment, link, lifecycle):
        yield f"transition {link.number} leads to no known state and phase"
        return
    if link.forced:
        return
    state = link.from_state
    if state == link.to_state and (before is None or (_sums(before), before.phase) != (_sums(link), link.phase)):
        return  # its sums have changed, and not its state
    try:
        for target in (*map(str, link.via), link.to_state):
            state = moves_of(lifecycle).fire(state, target)
    except IllegalMove as illegal:
        if not link.via and any("state" in entry for entry in payment.names or ()):
            return  # from the state of one attempt to that of another, as reading its message again proves
        yield f"transition {link.number} is no legal walk: {illegal.message}"


def _is_phase_of(payment: Payment, link: Transition, lifecycle: Lifecycle) -> bool:
    """Return whether a transition's phase follows from its state and sums.

    The amount may have become known after it. Whether "refunded" is said of a part shows when its message is read.
    """
    sums = Sums(**{name: getattr(link, name) for name in MOVED_SUMS})
    phase = lifecycle.phase(link.to_state)
    found = {phase_with_sums(phase, sums, amount) for amount in (payment.amount_minor, None)}
    if phase is Phase.REFUNDED and is_refund_of_part(sums, payment.amount_minor):
        found |= {Phase.PAID, Phase.SETTLED}
    return link.phase in {each.value for each in found}


def payment_problems(
    payment: Payment, chain: list[Transition], retention: RetentionRecords, seals: SealVerifier
) -> Iterator[str]:
    """Yield what differs between a payment and its history."""
    yield from _seal(
        seals, hashing.payment(payment), payment.seal, payment.created_at, "what is kept of the payment has changed"
    )
    if not chain and payment.version and retention.has_history(payment.id):
        retention.missed["transitions"] += payment.version
        return
    if not chain:
        if (payment.version, payment.head_hash, payment.state) != (0, "", None):
            yield "its history is gone"
        return
    last = chain[-1]
    rebuilt = (last.number, last.hash, last.to_state, last.phase, last.recorded_at, _sums(last))
    kept = (
        payment.version,
        payment.head_hash,
        payment.state,
        payment.phase,
        payment.changed_at,
        _sums(payment),
    )
    if rebuilt != kept:
        yield f"its history ends at {last.to_state}, number {last.number}; it says {payment.state}, {payment.version}"


def poll_problems(payment: Payment, poll: PaymentPoll, seals: SealVerifier) -> Iterator[str]:
    """Yield what is wrong with what is kept of the payment's messages."""
    changed = "when the payment was last heard of, or how often, has changed"
    yield from _seal(seals, hashing.payment_poll(poll), poll.seal, payment.created_at, changed)
    if poll.account != payment.account:
        yield f"it is of another account than payment {payment.id}"


def name_problems(payment: Payment, known: set[tuple[str, str, str]]) -> Iterator[str]:
    """Yield where the index of further names differs from what the payment keeps."""
    kept = {(payment.account, payment.kind, str(entry["name"])) for entry in payment.names or ()}
    for _account, kind, name in sorted(kept - known):
        yield f"the payment is not found by its name {kind} {name}"
    for account, kind, name in sorted(known - kept):
        yield f"{kind} {name} of account {account} is no name of the payment"


def _sums(row: Payment | Transition) -> tuple[int, ...]:
    """Return the sums that a transition keeps, 0 where nothing was said."""
    return tuple(getattr(row, name) or 0 for name in MOVED_SUMS)


def outbox_problems(
    message: OutboxMessage,
    attempts: list[DeliveryAttempt],
    cause: InboxMessage | None,
    retention: RetentionRecords,
    seals: SealVerifier,
    redrives: int,
) -> Iterator[str]:
    """Yield what is wrong with an outbox message, given its cause and attempts.

    `redrives` is how often people made it due again.
    """
    content, status = hashing.outbox_message(message.__dict__), hashing.outbox_status(message.__dict__)
    yield from _seal(seals, content, message.seal, message.created_at, "what is owed has changed")
    yield from _seal(seals, status, message.status_seal, message.created_at, "its status has changed")
    if cause is None and retention.has_message(message.cause):
        retention.missed["messages"] += 1
    elif cause is None or not any(
        entry.get("payment") == message.payment_id
        and message.effect in texts(entry, "effects")
        and message.id in texts(entry, "outbox")
        for entry in entries(cause)
    ):
        yield "no decision made it owed"
    elif cause.account != message.account:
        yield f"message {cause.id}, which made it owed, is of another account"
    attempts = sorted(attempts, key=lambda attempt: attempt.number)
    first = attempts[0].number if attempts else message.attempts + 1
    if first > 1 and retention.has_attempts(message.id):
        retention.missed["attempts"] += first - 1
        if not attempts:
            return
    else:
        first = 1
    if [attempt.number for attempt in attempts] != list(range(first, message.attempts + 1)):
        yield f"{len(attempts)} tries are kept of {message.attempts}"
        return
    last = attempts[-1] if attempts else None
    given_up = sum(attempt.outcome == "dead" for attempt in attempts)
    redriven = given_up - int(message.status == OutboxStatus.DEAD)
    if redriven > redrives:
        yield f"it was given up and made due again {redriven} times, and people did that {redrives} times"
    if message.status not in _STATUSES_AFTER.get(last.outcome if last else "", ()):
        yield f"its status {message.status} is not what its tries say"
    if message.last_error != (last.error if last else None):
        yield "its last error is not that of its last try"
    ended_at = last.started_at + timedelta(milliseconds=last.duration_ms) if last else None
    if message.delivered_at != (ended_at if message.status == OutboxStatus.DELIVERED else None):
        yield f"it was not delivered at {message.delivered_at}"


def attempt_problems(attempt: DeliveryAttempt, message: OutboxMessage, seals: SealVerifier) -> Iterator[str]:
    """Yield what is wrong with one attempt to deliver an effect."""
    if attempt.account != message.account:
        yield f"try {attempt.number} is of another account than its effect"
    if not seals.predates_seals(attempt.seal, attempt.started_at):
        changed = f"what is kept of try {attempt.number} has changed"
        yield from _seal(seals, hashing.attempt(attempt), attempt.seal, attempt.started_at, changed)


def message_problems(message: InboxMessage, seals: SealVerifier, retention: RetentionRecords) -> Iterator[str]:
    """Yield what is wrong with a message by itself, except for its signature."""
    if message.scrubbed_at is not None:
        retention.missed["bodies"] += 1
        if message.body:
            yield "it is said to be scrubbed, and has a body"
        if not retention.has_body(message.id, message.scrubbed_at):
            yield "its body is gone, and no run of retention took it"
    elif hashing.body_digest(message.body) != message.digest:
        yield "the body is not the one that was received"
    changed = "what was recorded with the message has changed"
    yield from _seal(seals, hashing.envelope(message), message.envelope_digest, message.received_at, changed)


def decision_problems(evidence: MessageEvidence, seals: SealVerifier) -> Iterator[str]:
    """Yield what is wrong with a message's decisions, of all of its readings."""
    counts = Counter(row.reading for row in evidence.decisions)
    expected = [(reading, number) for reading in range(1, len(counts) + 1) for number in range(1, counts[reading] + 1)]
    if [(row.reading, row.number) for row in evidence.decisions] != expected:
        yield "they are not numbered one by one: one was taken away or added"
        return
    for row in evidence.decisions:
        content = hashing.decision(row.__dict__, evidence.message.envelope_digest, counts[row.reading])
        changed = f"decision {row.number} of reading {row.reading} has changed, or one beside it"
        yield from _seal(seals, content, row.seal, row.at, changed)


def queue_problems(evidence: MessageEvidence) -> Iterator[str]:
    """Yield where the queue contradicts what was decided about a message."""
    queued, newest = evidence.queued, evidence.newest
    if queued is None:
        if not newest:
            yield "the message is not decided, and waits no more"
        elif evidence.message.decision == Outcome.PARKED:
            yield "the message is parked, and waits no more"
        return
    if queued.account != evidence.message.account:
        yield "it is of another account than its message"
    readings = len({row.reading for row in evidence.decisions})
    if queued.readings != readings:
        yield f"it counts {queued.readings} readings, and decisions of {readings} are kept"
    if queued.status == InboxStatus.DEAD and not any(entry.get("dead") for entry in newest):
        yield "it is dead, and no decision gave it up"
    if queued.status == InboxStatus.PARKED and evidence.message.decision != Outcome.PARKED:
        yield "it is parked, and the newest decision is another"
    awaited = {entry["awaits"] for entry in newest if "awaits" in entry and queued.status == InboxStatus.PARKED}
    if queued.awaits not in (awaited or {None}):
        yield "it waits for another payment than it was decided to wait for"


def replay_problems(evidence: MessageEvidence, replays: int) -> Iterator[str]:
    """Yield a problem if it was decided again more often than replayed.

    What waits for a payment is decided again by itself.
    """
    is_final: dict[int, bool] = {}  #: of each reading
    for row in evidence.decisions:
        is_final[row.reading] = is_final.get(row.reading, True) and "awaits" not in (row.details or {})
    final = list(is_final.values())
    repeats = sum(final) if evidence.message.status == InboxStatus.PENDING else sum(final[:-1])
    if repeats > replays:
        yield f"it was decided again {repeats} times, and people replayed it {replays} times"


def _seal(seals: SealVerifier, content: bytes, seal: str | None, at: datetime, changed: str) -> Iterator[str]:
    problem = seals.problem(content, seal, at, changed)
    if problem is not None:
        yield problem
