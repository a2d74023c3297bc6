"""Audit of the history: seals, signatures, chains, effects and decisions."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from audit import replay, table_checks
from audit.replay import OtherPayments, PaymentReplay
from audit.retention import RetentionRecords
from audit.row_checks import (
    BearerCredentials,
    ExistingRows,
    MessageEvidence,
    attempt_problems,
    decision_problems,
    entries,
    link_problems,
    message_problems,
    name_problems,
    outbox_problems,
    outcome_problems,
    payment_problems,
    poll_problems,
    queue_problems,
    replay_problems,
    texts,
)
from audit.seals import SealVerifier, Trust
from audit.table_checks import ActionIndex
from providers.contract import UNSIGNED, Delivery, Provider, Reading
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine import own_statements
from statemachine.phases import Outcome, Source
from storage import inbox, operator_actions, outbox, payments
from storage import transitions as storage_transitions
from storage.audits import UNREADABLE, Found, Reader
from storage.database import Database, Unit
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, PaymentPoll, Transition
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.tables_support import RetentionRun
from storage.types import InboxStatus

_PAGE_SIZE: Final = 300

_SIGNED: Final = frozenset({Source.WEBHOOK, Source.CALLBACK})

_MESSAGES: Final = Reader(InboxMessage)
_QUEUE: Final = Reader(QueuedMessage, "message_id")
_DECISIONS: Final = Reader(RecordedDecision, "message_id")
_PAYMENTS: Final = Reader(Payment)
_POLLS: Final = Reader(PaymentPoll, "payment_id")
_TRANSITIONS: Final = Reader(Transition)
_OUTBOX: Final = Reader(OutboxMessage)
_ATTEMPTS: Final = Reader(DeliveryAttempt)
_RUNS: Final = Reader(RetentionRun)

#: Of a message: no payment is named by what was decided about it.
_ABOUT_NO_PAYMENT: Final = (
    "NOT EXISTS (SELECT 1 FROM decision WHERE decision.message_id = inbox_message.id "
    "AND decision.payment_id IS NOT NULL)"
)

Row = TypeVar(
    "Row",
    InboxMessage,
    QueuedMessage,
    RecordedDecision,
    Payment,
    PaymentPoll,
    Transition,
    OutboxMessage,
    DeliveryAttempt,
    RetentionRun,
)


@dataclass(frozen=True, slots=True)
class AuditedAccount:
    """An account's provider, signature keys and environment, as an audit needs it.

    Keys that have ended belong here too.
    """

    provider: Provider
    keys: Mapping[str, Key]  #: by id
    window: Window
    is_live: bool | None = None  #: whether its money is real; None: statements are not compared with that


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One row that is not what it was when it was written."""

    table: str
    row: str
    problem: str


@dataclass(slots=True)
class AuditReport:
    """Counts of checked rows, and the faults that were found."""

    messages: int = 0
    signatures: int = 0  #: verified again
    unverifiable: int = 0  #: authentic when received, by a key that is gone and allowed by name
    read_again: int = 0  #: statements about payments that were read and decided again, with the same result
    not_readable: int = 0  #: statements that are not: their bytes are gone by a rule, or their account is
    payments: int = 0
    transitions: int = 0
    outbox: int = 0
    retained: dict[str, int] = field(default_factory=dict)  #: what is missing by a rule of retention, and no fault
    seals: dict[str, int] = field(default_factory=dict)  #: rows by the key that sealed them; "" for none
    faults: list[AuditFinding] = field(default_factory=list)

    @property
    def first(self) -> AuditFinding | None:
        """The first row that is wrong, in the order in which rows are checked."""
        return self.faults[0] if self.faults else None


class Audit:
    """One pass over everything that is kept, payment by payment. Reads only.

    A message that was about no payment can be taken away unseen with its delivery key: nothing rests on it.
    """

    def __init__(
        self,
        database: Database,
        accounts: Mapping[str, AuditedAccount],
        trust: Trust | None = None,
        *,
        on_progress: Callable[[AuditReport], None] = lambda _report: None,
    ) -> None:
        """Trust the keys with which the database seals, where `trust` is not given."""
        self._database = database
        self._accounts = accounts
        self._trust = trust or Trust(database.sealer)
        self._on_progress = on_progress
        self._report = AuditReport()
        self._seals = SealVerifier(self._trust)
        self._actions = ActionIndex()
        self._credentials = BearerCredentials()
        self._retention = RetentionRecords(())
        self._kinds = {name: tuple(account.provider.lifecycles) for name, account in accounts.items()}

    def run(self) -> AuditReport:
        """Check everything, in one snapshot.

        The history holds exactly when there are no faults. Raises StorageUnavailable.
        """
        with self._database.read() as unit:  # one snapshot, so that a running service does not confuse the audit
            self._retention = RetentionRecords(self._all(unit, _RUNS))
            self._add(table_checks.chained_actions(unit, self._seals, self._actions))
            for found in self._pages(unit, _PAYMENTS):
                self._check_payments(unit, found)
            for messages in self._pages(unit, _MESSAGES, only=_ABOUT_NO_PAYMENT):
                self._check_other_messages(unit, messages)
            for owed in self._pages(unit, _OUTBOX, only="payment_id IS NULL"):
                self._check_account_effects(unit, owed)
            self._add(table_checks.sealed_rows(unit, self._seals, self._report.payments))
            self._add(table_checks.disagreements(unit, self._retention))
            self._add(("retention_run", *found) for found in self._retention.problems(self._seals))
            return self._finished(unit)

    def of_payment(self, payment_id: str) -> AuditReport:
        """Check one payment: its chain, the messages that it rests on, and its effects.

        One thing only `run` can tell: that no message was taken away which named it beside other payments. Raises
        NotFound and StorageUnavailable.
        """
        with self._database.read() as unit:
            payment = payments.get(unit, payment_id)
            self._retention = RetentionRecords(self._all(unit, _RUNS))
            concerned = inbox.concerning_ids(unit, payment_id)
            owed = outbox.of_payment(unit, payment_id)
            for action in operator_actions.of_subjects(unit, [payment_id, *concerned, *(effect.id for effect in owed)]):
                self._actions.add(action)
            self._check_payments(unit, [payment], concerned=concerned)
            return self._finished(unit)

    def _finished(self, unit: Unit) -> AuditReport:
        reported = {(fault.table, fault.row) for fault in self._report.faults}
        for row in unit.unreadable:  # met while other rows were looked up
            if (row.table, row.row_id) not in reported:
                self._fault(row.table, row.row_id, row.words)
        self._report.retained = {name: count for name, count in self._retention.missed.items() if count}
        self._report.seals = dict(self._seals.opened)
        return self._report

    # -- reading

    def _pages(self, unit: Unit, reader: Reader[Row], *, only: str = "true") -> Iterator[list[Row]]:
        for row in reader.nameless(unit):
            self._fault(reader.table, row, "its id is no text")
        after = b""
        while (page := reader.page(unit, after, _PAGE_SIZE, only=only)).last:
            self._add_unreadable(reader, page)
            yield page.rows
            after = page.last
            self._on_progress(self._report)

    def _all(self, unit: Unit, reader: Reader[Row]) -> list[Row]:
        return [row for page in self._pages(unit, reader) for row in page]

    def _of(self, unit: Unit, reader: Reader[Row], column: str, ids: Sequence[str]) -> list[Row]:
        found = reader.of(unit, column, ids)
        self._add_unreadable(reader, found)
        return found.rows

    def _add_unreadable(self, reader: Reader[Row], found: Found[Row]) -> None:
        for row, problem in found.unreadable:
            self._fault(reader.table, row, problem)

    def _fault(self, table: str, row: str, problem: str) -> None:
        self._report.faults.append(AuditFinding(table, row, problem))

    def _add(self, problems: Iterable[tuple[str, str, str]]) -> None:
        for table, row, problem in problems:
            self._fault(table, row, problem)

    def _add_of_row(self, table: str, row: str, problems: Iterator[str]) -> None:
        """Add the problems of one row; one that cannot be understood is a fault."""
        try:
            for problem in problems:
                self._fault(table, row, problem)
        except UNREADABLE as broken:
            self._fault(table, row, f"it cannot be understood: {type(broken).__name__}")

    # -- payments

    def _check_payments(self, unit: Unit, found: list[Payment], *, concerned: Sequence[str] | None = None) -> None:
        """Check payments with all about them; `concerned` are messages of a lone one."""
        is_alone = concerned is not None
        ids = [payment.id for payment in found]
        statements_of = self._check_polls(unit, found)
        self._check_names(unit, found)
        about: defaultdict[str, dict[str, None]] = defaultdict(dict)  #: by payment: its messages
        for row in self._of(unit, _DECISIONS, "payment_id", ids):
            about[str(row.payment_id)][row.message_id] = None
        if concerned is not None:
            about[ids[0]] |= dict.fromkeys(concerned)
        messages = self._messages(unit, sorted({each for named in about.values() for each in named}))
        chains = _grouped(self._of(unit, _TRANSITIONS, "payment_id", ids), lambda link: link.payment_id)
        owed = _grouped(self._of(unit, _OUTBOX, "payment_id", ids), lambda effect: str(effect.payment_id))
        links = [link for chain in chains.values() for link in chain]
        effects_of_page = [effect for effects in owed.values() for effect in effects]
        causes = ({link.cause for link in links} | {effect.cause for effect in effects_of_page}) - messages.keys()
        evidence = messages | self._messages(unit, sorted(causes))
        # a message about several payments is checked with the first of them
        checked = [each for each in messages.values() if is_alone or each.message.payment_id in ids]
        existing = self._existing(unit, [each.message for each in checked], found, links, effects_of_page)
        for each in checked:
            self._check_message(each, existing)
        kept = {an_id: each.message for an_id, each in evidence.items()}
        attempts = self._attempts(unit, effects_of_page)
        others, readings = OtherPayments(unit, self._kinds), dict[str, Reading]()
        others.prefetch(found)
        for payment in found:
            chain = sorted(chains.get(payment.id, ()), key=lambda link: link.number)
            about_it = {an_id: kept[an_id] for an_id in about.get(payment.id, ()) if an_id in messages}
            effects = owed.get(payment.id, [])
            self._report.payments += 1
            self._check_chain(payment, chain, kept)
            said = statements_of.get(payment.id)
            problems = self._payment_problems(payment, chain, about_it.values(), said, is_alone=is_alone)
            self._add_of_row("payment", payment.id, problems)
            for effect in effects:
                self._check_effect(effect, attempts.get(effect.id, []), kept)
            self._replay(unit, payment, said, list(about_it.values()), chain, effects, others, readings)

    def _check_polls(self, unit: Unit, found: Sequence[Payment]) -> dict[str, int]:
        """Check when payments were heard of; return their numbers of statements by id."""
        kept = _POLLS.of(unit, "payment_id", [payment.id for payment in found])
        self._add_unreadable(_POLLS, kept)
        polls = {poll.payment_id: poll for poll in kept.rows}
        unreadable = {row for row, _problem in kept.unreadable}
        for payment in found:
            poll = polls.get(payment.id)
            if poll is not None:
                self._add_of_row("payment_poll", payment.id, poll_problems(payment, poll, self._seals))
            elif payment.id not in unreadable:
                self._fault("payment_poll", payment.id, "it is gone, and with it how many outcomes named the payment")
        return {payment_id: poll.statements for payment_id, poll in polls.items()}

    def _check_names(self, unit: Unit, found: Sequence[Payment]) -> None:
        """Check that payments are found by their further names, and by no others."""
        known = payments.known_names(unit, [payment.id for payment in found])
        for payment in found:
            self._add_of_row("payment_name", payment.id, name_problems(payment, known.get(payment.id, set())))

    def _check_chain(self, payment: Payment, chain: Sequence[Transition], causes: Mapping[str, InboxMessage]) -> None:
        account = self._accounts.get(payment.account)
        lifecycle = account.provider.lifecycles.get(payment.kind) if account else None
        before: Transition | None = None
        for link in chain:
            self._report.transitions += 1
            problems = link_problems(
                payment, before, link, causes.get(link.cause), lifecycle, self._retention, self._seals
            )
            self._add_of_row("transition", link.id, problems)
            before = link

    def _payment_problems(
        self,
        payment: Payment,
        chain: list[Transition],
        messages: Iterable[InboxMessage],
        said: int | None,
        *,
        is_alone: bool,
    ) -> Iterator[str]:
        """Yield what is wrong with a payment; `said` is its kept number of statements."""
        yield from payment_problems(payment, chain, self._retention, self._seals)
        if said is None:
            return
        kept = sum(entry.get("payment") == payment.id for message in messages for entry in entries(message))
        missing = said - kept
        if missing > 0 and self._retention.takes_messages:
            self._retention.missed["statements"] += missing
        elif missing and not (is_alone and missing > 0):
            yield f"{said} outcomes named it, {kept} are kept"

    def _replay(
        self,
        unit: Unit,
        payment: Payment,
        said: int | None,
        messages: list[InboxMessage],
        chain: list[Transition],
        effects: list[OutboxMessage],
        others: OtherPayments,
        readings: dict[str, Reading],
    ) -> None:
        account = self._accounts.get(payment.account)
        if account is None or payment.kind not in account.provider.lifecycles:
            self._report.not_readable += said or 0
            return
        try:
            replayed = PaymentReplay(unit, account.provider, others, readings, is_live=account.is_live).run(
                payment, said, messages, chain, effects
            )
        except UNREADABLE as broken:
            self._fault("payment", payment.id, f"its messages cannot be read again: {type(broken).__name__}")
            return
        self._report.read_again += replayed.read
        self._report.not_readable += replayed.unread
        self._add(replayed.problems)

    # -- messages

    def _messages(self, unit: Unit, ids: Sequence[str]) -> dict[str, MessageEvidence]:
        """Read messages with what was decided about them, and what waits."""
        return self._with_decisions(unit, self._of(unit, _MESSAGES, "id", ids))

    def _with_decisions(self, unit: Unit, messages: Sequence[InboxMessage]) -> dict[str, MessageEvidence]:
        ids = [message.id for message in messages]
        decided = _grouped(self._of(unit, _DECISIONS, "message_id", ids), lambda row: row.message_id)
        queued = {row.message_id: row for row in self._of(unit, _QUEUE, "message_id", ids)}
        return {
            message.id: MessageEvidence.of(message, decided.get(message.id, []), queued.get(message.id))
            for message in messages
        }

    def _check_other_messages(self, unit: Unit, messages: list[InboxMessage]) -> None:
        """Check messages about no payment; a note must name no payment's state."""
        evidence = self._with_decisions(unit, messages)
        existing = self._existing(unit, messages)
        for message in messages:
            self._check_message(evidence[message.id], existing)
            if message.status == InboxStatus.DECIDED and message.decision == Outcome.NOTED:
                self._add_of_row("inbox_message", message.id, self._note_problems(unit, message))

    def _note_problems(self, unit: Unit, message: InboxMessage) -> Iterator[str]:
        account = self._accounts.get(message.account)
        if account is None or message.scrubbed_at is not None:
            self._report.not_readable += 1
        elif replay.names_payment_state(unit, account.provider, message):
            yield "read again, it names a payment's state, and it was decided to say nothing"
        else:
            self._report.read_again += 1

    def _existing(
        self,
        unit: Unit,
        messages: Sequence[InboxMessage],
        found: Sequence[Payment] = (),
        links: Sequence[Transition] = (),
        effects: Sequence[OutboxMessage] = (),
    ) -> ExistingRows:
        """Look up the rows that outcomes name; those already read are not read again."""
        existing = ExistingRows(
            {payment.id for payment in found},
            {(effect.cause, effect.id) for effect in effects},
            {(link.cause, link.payment_id, str(link.number)) for link in links},
        )
        outcomes = [(message.id, entry) for message in messages for entry in entries(message)]
        named = {str(entry["payment"]) for _, entry in outcomes if "payment" in entry} - existing.payments
        moved = {
            cause
            for cause, entry in outcomes
            if "transition" in entry
            and (cause, str(entry.get("payment")), str(entry["transition"])) not in existing.moved
        }
        owed = [
            an_id
            for cause, entry in outcomes
            for an_id in texts(entry, "outbox")
            if (cause, an_id) not in existing.owed
        ]
        if named:
            existing.payments.update(payments.existing(unit, list(named)))
        if owed:
            existing.owed.update(outbox.causes_of(unit, owed))
        if moved:
            rows = storage_transitions.caused_by(unit, list(moved))
            existing.moved.update((cause, payment_id, str(number)) for cause, payment_id, number in rows)
        return existing

    def _check_message(self, evidence: MessageEvidence, existing: ExistingRows) -> None:
        self._report.messages += 1
        message = evidence.message
        self._add_of_row("decision", message.id, decision_problems(evidence, self._seals))
        self._add_of_row("inbox_queue", message.id, queue_problems(evidence))
        self._add_of_row("inbox_message", message.id, self._message_problems(evidence, existing))

    def _message_problems(self, evidence: MessageEvidence, existing: ExistingRows) -> Iterator[str]:
        message = evidence.message
        yield from message_problems(message, self._seals, self._retention)
        if message.source in _SIGNED and message.scrubbed_at is None:
            yield from self._signature_problems(message)
        yield from outcome_problems(message, existing, self._retention)
        yield from replay_problems(evidence, self._actions.count("replay", message.id))
        if message.source == Source.OPERATOR and message.scrubbed_at is None:
            statement = own_statements.decode(message.body)
            if isinstance(statement, own_statements.Resolution) and not self._actions.has(
                "resolve", str(message.about), statement.actor, statement.reason
            ):
                yield f"{statement.actor} resolved it, and that stands in no operator action"

    def _signature_problems(self, message: InboxMessage) -> Iterator[str]:
        account = self._accounts.get(message.account)
        key = account.keys.get(message.key_id or "") if account else None
        is_unsigned = message.key_id == UNSIGNED and account is not None and account.provider.authentication is None
        if account is None or (key is None and not is_unsigned):
            name = message.key_id or "-"
            if f"{message.account}/{name}" in self._trust.retired_keys:
                self._report.unverifiable += 1
            else:
                yield f"its webhook key {name} is neither configured nor allowed as a retired key"
            return
        headers = (
            (name, value if key is None else self._credentials.restore(value, key)) for name, value in message.headers
        )
        delivery = Delivery(message.body, tuple(headers))
        keys = KeyRing(() if key is None else (key,))
        try:
            verified = account.provider.verify(delivery, keys, account.window, message.received_at)
        except DeliveryRejected as rejected:
            yield f"the signature does not verify with key {message.key_id}: {rejected.reason}"
            return
        self._report.signatures += 0 if key is None else 1
        if verified.provider_time != message.provider_time:
            yield f"it is signed as of {verified.provider_time}, and {message.provider_time} is kept"
        identity = account.provider.identity(delivery, message.received_at, message.about)
        if message.variant_of is None and identity != message.delivery_key:
            yield "its delivery key is not that of what was delivered"

    # -- effects

    def _attempts(self, unit: Unit, owed: Sequence[OutboxMessage]) -> dict[str, list[DeliveryAttempt]]:
        found = self._of(unit, _ATTEMPTS, "outbox_id", [message.id for message in owed if message.attempts])
        return _grouped(found, lambda attempt: attempt.outbox_id)

    def _check_account_effects(self, unit: Unit, owed: list[OutboxMessage]) -> None:
        """Check outbox messages about accounts."""
        found = self._messages(unit, sorted({message.cause for message in owed}))
        causes = {an_id: each.message for an_id, each in found.items()}
        attempts = self._attempts(unit, owed)
        for message in owed:
            self._check_effect(message, attempts.get(message.id, []), causes)
            cause = causes.get(message.cause)
            if cause is not None and cause.scrubbed_at is None:
                self._add_of_row("outbox_message", message.id, _alarm_problems(message, cause))

    def _check_effect(
        self, message: OutboxMessage, attempts: list[DeliveryAttempt], causes: Mapping[str, InboxMessage]
    ) -> None:
        self._report.outbox += 1
        redrives = self._actions.count("redrive", message.id)
        problems = outbox_problems(message, attempts, causes.get(message.cause), self._retention, self._seals, redrives)
        self._add_of_row("outbox_message", message.id, problems)
        for attempt in attempts:
            self._add_of_row("delivery_attempt", attempt.id, attempt_problems(attempt, message, self._seals))


def _alarm_problems(message: OutboxMessage, cause: InboxMessage) -> Iterator[str]:
    problem = replay.alarm_problem(message, cause)
    if problem is not None:
        yield problem


def _grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found
