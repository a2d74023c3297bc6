"""Proves the history: every digest, signature, chain and payment recomputed from what is kept, first fault first."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

from providers.contract import Delivery, Provider
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.errors import IllegalMove
from statemachine.lifecycle import Lifecycle
from statemachine.machine import moves_of
from statemachine.phases import Source
from storage import history, inbox, outbox, payments, seals
from storage.engine import Database, Unit
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, Transition
from storage.types import InboxStatus, OutboxStatus

_PAGE = 500

#: Where an outbox message may stand after a last try with this outcome; a redrive takes it from dead to pending.
_STATUSES_AFTER = {
    "": (OutboxStatus.PENDING,),
    "failed": (OutboxStatus.PENDING,),
    "delivered": (OutboxStatus.DELIVERED,),
    "dead": (OutboxStatus.DEAD, OutboxStatus.PENDING),
}
_SIGNED = frozenset({Source.WEBHOOK, Source.CALLBACK})


@dataclass(frozen=True, slots=True)
class AuditedAccount:
    """What is needed to check an account's messages and payments again. Keys that have ended belong here too."""

    provider: Provider
    keys: Mapping[str, Key]  #: by id
    window: Window


@dataclass(frozen=True, slots=True)
class Fault:
    """One row that is not what it was when it was written."""

    table: str
    row: str
    problem: str


@dataclass(slots=True)
class Report:
    """What was checked and what was found."""

    messages: int = 0
    signatures: int = 0  #: verified again
    unverifiable: int = 0  #: authentic when received, but the key is not configured any more
    payments: int = 0
    transitions: int = 0
    outbox: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def first(self) -> Fault | None:
        """The first row that is wrong, in the order of the walk."""
        return self.faults[0] if self.faults else None


Row = TypeVar("Row", InboxMessage, Payment, OutboxMessage)


class Audit:
    """One walk over everything that is kept. Reads only.

    A message that was about no payment, or was not decided yet, can be taken away unseen: nothing rests on it.
    """

    def __init__(
        self,
        database: Database,
        accounts: Mapping[str, AuditedAccount],
        *,
        on_progress: Callable[[Report], None] = lambda _report: None,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._on_progress = on_progress
        self._report = Report()
        self._told: Counter[str] = Counter()  #: how many outcomes name each payment

    def run(self) -> Report:
        """The report; everything holds exactly when it has no faults. Raises StorageUnavailable."""
        try:
            self._walk()
        except (ValueError, TypeError, LookupError) as broken:
            self._fault("-", "-", f"rows cannot be read: {type(broken).__name__}")
        return self._report

    def _walk(self) -> None:
        with self._database.read() as unit:  # one snapshot, so that a running service does not confuse the walk
            for messages in self._pages(lambda after: inbox.find(unit, after=after, limit=_PAGE)):
                self._check_messages(unit, messages)
            for found in self._pages(lambda after: payments.find(unit, after=after, limit=_PAGE)):
                self._check_payments(unit, found)
            for owed in self._pages(lambda after: outbox.find(unit, after=after, limit=_PAGE)):
                self._check_outbox(unit, owed)
            kept = history.count(unit)
            if kept != self._report.transitions:
                self._fault("transition", "-", f"{kept} are kept, {self._report.transitions} belong to payments")

    def _pages(self, read: Callable[[str], list[Row]]) -> Iterator[list[Row]]:
        after = ""
        while page := read(after):
            yield page
            after = page[-1].id
            self._on_progress(self._report)

    def _fault(self, table: str, row: str, problem: str) -> None:
        self._report.faults.append(Fault(table, row, problem))

    # -- messages -----------------------------------------------------------------------------------------------

    def _check_messages(self, unit: Unit, messages: list[InboxMessage]) -> None:
        named = {str(entry["payment"]) for m in messages for entry in _entries(m) if "payment" in entry}
        existing = payments.existing(unit, list(named))
        owed = outbox.caused_by(unit, [m.id for m in messages])
        moved = history.caused_by(unit, [m.id for m in messages])
        for message in messages:
            self._report.messages += 1
            for problem in (
                *self._message_problems(message),
                *_outcome_problems(message, existing, owed, moved),
            ):
                self._fault("inbox_message", message.id, problem)
            self._told.update(str(entry["payment"]) for entry in _entries(message) if "payment" in entry)

    def _message_problems(self, message: InboxMessage) -> Iterator[str]:
        if seals.body_digest(message.body) != message.digest:
            yield "the body is not the one that was received"
        if seals.envelope_digest(message) != message.envelope_digest:
            yield "what was recorded with the message has changed"
        if message.status == InboxStatus.PENDING:
            if message.decision_digest is not None or message.decided_at is not None:
                yield "a decided message is pending again without a replay"
        elif seals.decision_digest(message) != message.decision_digest:
            yield "the decision has changed"
        if message.source in _SIGNED:
            yield from self._signature_problems(message)

    def _signature_problems(self, message: InboxMessage) -> Iterator[str]:
        account = self._accounts.get(message.account)
        key = account.keys.get(message.key_id or "") if account else None
        if account is None or key is None:
            self._report.unverifiable += 1
            return
        headers = tuple((name, _shown(value, key)) for name, value in message.headers)
        try:
            account.provider.verify(
                Delivery(message.body, headers), KeyRing((key,)), account.window, message.received_at
            )
        except DeliveryRejected as rejected:
            yield f"the signature does not verify with key {key.id}: {rejected.reason}"
        else:
            self._report.signatures += 1

    # -- payments -----------------------------------------------------------------------------------------------

    def _check_payments(self, unit: Unit, found: list[Payment]) -> None:
        chains = history.of_payments(unit, [payment.id for payment in found])
        causes = inbox.get_many(unit, [link.cause for chain in chains.values() for link in chain])
        for payment in found:
            self._report.payments += 1
            chain = chains.get(payment.id, [])
            account = self._accounts.get(payment.account)
            lifecycle = account.provider.lifecycles.get(payment.kind) if account else None
            before: Transition | None = None
            for link in chain:
                self._report.transitions += 1
                for problem in _link_problems(payment, before, link, causes.get(link.cause), lifecycle):
                    self._fault("transition", link.id, problem)
                before = link
            for problem in _payment_problems(payment, chain):
                self._fault("payment", payment.id, problem)
            if self._told[payment.id] != payment.statements:
                told = f"{payment.statements} outcomes named it, {self._told[payment.id]} are kept"
                self._fault("payment", payment.id, told)

    # -- outbox -------------------------------------------------------------------------------------------------

    def _check_outbox(self, unit: Unit, owed: list[OutboxMessage]) -> None:
        tries: dict[str, list[DeliveryAttempt]] = {}
        for attempt in outbox.attempts_of(unit, [message.id for message in owed]):
            tries.setdefault(attempt.outbox_id, []).append(attempt)
        causes = inbox.get_many(unit, [message.cause for message in owed])
        for message in owed:
            self._report.outbox += 1
            for problem in _outbox_problems(message, tries.get(message.id, []), causes.get(message.cause)):
                self._fault("outbox_message", message.id, problem)


def _entries(message: InboxMessage) -> list[dict[str, Any]]:
    """The message's outcomes, as far as they have the form of outcomes: a tampered row must not end the walk."""
    kept: list[Any] = list(message.outcomes)
    return [entry for entry in kept if isinstance(entry, dict)]


def _texts(entry: dict[str, Any], name: str) -> list[str]:
    found = entry.get(name)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _shown(value: str, key: Key) -> str:
    """A kept header as it was received: a credential's digest stands for the credential that has that digest."""
    bearer = f"Bearer {key.secret.decode('latin-1')}"
    return bearer if value == f"sha256={sha256(bearer.encode('latin-1')).hexdigest()}" else value


def _outcome_problems(
    message: InboxMessage, existing: set[str], owed: set[tuple[str, str]], moved: set[tuple[str, str, int]]
) -> Iterator[str]:
    numbered = {(cause, payment, str(number)) for cause, payment, number in moved}
    for entry in _entries(message):
        payment, number = entry.get("payment"), entry.get("transition")
        if payment is not None and payment not in existing:
            yield f"payment {payment}, which it was decided about, is gone"
        if number is not None and (message.id, str(payment), str(number)) not in numbered:
            yield f"transition {number} of payment {payment}, which it was decided to be, is gone"
        for owed_id in _texts(entry, "outbox"):
            if (message.id, owed_id) not in owed:
                yield f"{owed_id}, which it made owed, is gone from the outbox"


def _link_problems(
    payment: Payment,
    before: Transition | None,
    link: Transition,
    cause: InboxMessage | None,
    lifecycle: Lifecycle | None,
) -> Iterator[str]:
    if seals.transition_hash(link) != link.hash:
        yield f"transition {link.number} of payment {payment.id} has changed"
    if link.prev_hash != (before.hash if before else ""):
        yield f"transition {link.number} does not follow the one before"
    if link.number != (before.number if before else 0) + 1:
        yield f"transition {link.number} comes after {before.number if before else 0}"
    if link.from_state != (before.to_state if before else None):
        yield f"transition {link.number} starts at {link.from_state}, where the payment was not"
    if cause is None:
        yield f"the evidence of transition {link.number} is gone"
    elif (link.evidence, link.source, payment.account) != (cause.envelope_digest, cause.source, cause.account):
        yield f"transition {link.number} does not rest on message {cause.id} as it is kept"
    elif not any(e.get("payment") == payment.id and e.get("transition") == link.number for e in _entries(cause)):
        yield f"message {cause.id} was not decided to be transition {link.number}"
    if lifecycle is not None:
        yield from _walk_problems(link, lifecycle)


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


def _payment_problems(payment: Payment, chain: list[Transition]) -> Iterator[str]:
    if seals.payment_seal(payment) != payment.seal:
        yield "what is kept of the payment has changed"
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


def _outbox_problems(message: OutboxMessage, tries: list[DeliveryAttempt], cause: InboxMessage | None) -> Iterator[str]:
    if seals.outbox_seal(message) != message.seal:
        yield "what is owed has changed"
    if cause is None or not any(
        entry.get("payment") == message.payment_id
        and message.effect in _texts(entry, "effects")
        and message.id in _texts(entry, "outbox")
        for entry in _entries(cause)
    ):
        yield "no decision made it owed"
    tries = sorted(tries, key=lambda attempt: attempt.number)
    if [attempt.number for attempt in tries] != list(range(1, message.attempts + 1)):
        yield f"{len(tries)} tries are kept of {message.attempts}"
        return
    last = tries[-1] if tries else None
    if message.status not in _STATUSES_AFTER.get(last.outcome if last else "", ()):
        yield f"its status {message.status} is not what its tries say"
    if message.last_error != (last.error if last else None):
        yield "its last error is not that of its last try"
    ended_at = last.started_at + timedelta(milliseconds=last.duration_ms) if last else None
    if message.delivered_at != (ended_at if message.status == OutboxStatus.DELIVERED else None):
        yield f"it was not delivered at {message.delivered_at}"
