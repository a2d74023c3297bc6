"""Proves the history: seals, signatures, chains and effects, and what every kept message says when it is read again."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from audit import replay, tables
from audit.problems import (
    Credentials,
    attempt_problems,
    entries,
    link_problems,
    message_problems,
    outbox_problems,
    outcome_problems,
    payment_problems,
    replay_problems,
    texts,
)
from audit.replay import Others, Replay
from audit.retained import Retained
from audit.tables import Actions
from audit.trust import Seals, Trust
from providers import keepable
from providers.contract import Delivery, Provider, Reading
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine import statements
from statemachine.phases import Outcome, Source
from storage import audits, inbox, operator_actions, outbox, payments
from storage import transitions as storage_transitions
from storage.audits import UNREADABLE, Found, Reader
from storage.database import Database, Unit
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, Transition
from storage.tables_support import RetentionRun
from storage.types import InboxStatus

_PAGE: Final = 300

_SIGNED: Final = frozenset({Source.WEBHOOK, Source.CALLBACK})

_MESSAGES: Final = Reader(InboxMessage)
_PAYMENTS: Final = Reader(Payment)
_TRANSITIONS: Final = Reader(Transition)
_OUTBOX: Final = Reader(OutboxMessage)
_ATTEMPTS: Final = Reader(DeliveryAttempt)
_RUNS: Final = Reader(RetentionRun)

Row = TypeVar("Row", InboxMessage, Payment, Transition, OutboxMessage, DeliveryAttempt, RetentionRun)


@dataclass(frozen=True, slots=True)
class AuditedAccount:
    """What is needed to check an account's messages and payments again. Keys that have ended belong here too."""

    provider: Provider
    keys: Mapping[str, Key]  #: by id
    window: Window
    is_live: bool | None = None  #: whether its money is real; None: statements are not compared with that


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
    unverifiable: int = 0  #: authentic when received, by a key that is gone and allowed by name
    read_again: int = 0  #: statements about payments that were read and decided again, with the same result
    not_readable: int = 0  #: statements that are not: their bytes are gone by a rule, or their account is
    payments: int = 0
    transitions: int = 0
    outbox: int = 0
    retained: dict[str, int] = field(default_factory=dict)  #: what is missing by a rule of retention, and no fault
    seals: dict[str, int] = field(default_factory=dict)  #: rows by the key that sealed them; "" for none
    faults: list[Fault] = field(default_factory=list)

    @property
    def first(self) -> Fault | None:
        """The first row that is wrong, in the order of the walk."""
        return self.faults[0] if self.faults else None


@dataclass(slots=True)
class _Known:
    """What a page of messages may name besides what is at hand."""

    payments: set[str]
    owed: set[tuple[str, str]]
    moved: set[tuple[str, str, str]]  #: cause, payment and number


class Audit:
    """One walk over everything that is kept, payment by payment. Reads only.

    A message that was about no payment can be taken away unseen with its delivery key: nothing rests on it.
    """

    def __init__(
        self,
        database: Database,
        accounts: Mapping[str, AuditedAccount],
        trust: Trust | None = None,
        *,
        on_progress: Callable[[Report], None] = lambda _report: None,
    ) -> None:
        """`trust` is by default that in the keys with which the database seals."""
        self._database = database
        self._accounts = accounts
        self._trust = trust or Trust(database.sealer)
        self._on_progress = on_progress
        self._report = Report()
        self._seals = Seals(self._trust)
        self._actions = Actions()
        self._credentials = Credentials()
        self._beside: defaultdict[str, list[str]] = defaultdict(list)  #: messages that name a payment beside another
        self._retained = Retained(())
        self._kinds = {name: tuple(account.provider.lifecycles) for name, account in accounts.items()}

    def run(self) -> Report:
        """The report; everything holds exactly when it has no faults. Raises StorageUnavailable."""
        with self._database.read() as unit:  # one snapshot, so that a running service does not confuse the walk
            self._retained = Retained(self._every(unit, _RUNS))
            self._add(tables.chained_actions(unit, self._seals, self._actions))
            self._find_beside(unit)
            for found in self._pages(unit, _PAYMENTS):
                self._check_payments(unit, found)
            for messages in self._pages(unit, _MESSAGES, only="payment_id IS NULL"):
                self._check_other_messages(unit, messages)
            for owed in self._pages(unit, _OUTBOX, only="payment_id IS NULL"):
                self._check_outbox(unit, owed, {})
            self._add(tables.sealed_rows(unit, self._seals, self._report.payments))
            self._add(tables.disagreements(unit, self._retained))
            self._add(("retention_run", *found) for found in self._retained.problems(self._seals))
            return self._finished(unit)

    def of_payment(self, payment_id: str) -> Report:
        """The report about one payment: its chain, the messages that it rests on, and what it made owed.

        What only a walk over everything can tell is left out: that no message was taken away which named it beside
        other payments. Raises NotFound and StorageUnavailable.
        """
        with self._database.read() as unit:
            payment = payments.get(unit, payment_id)
            self._retained = Retained(self._every(unit, _RUNS))
            concerned = inbox.concerning_ids(unit, payment_id)
            self._beside[payment_id] = concerned
            owed = outbox.of_payment(unit, payment_id)
            for done in operator_actions.of_subjects(unit, [payment_id, *concerned, *(each.id for each in owed)]):
                self._actions.add(done)
            self._check_payments(unit, [payment], is_alone=True)
            return self._finished(unit)

    def _finished(self, unit: Unit) -> Report:
        told = {(fault.table, fault.row) for fault in self._report.faults}
        for row in unit.unreadable:  # met beside what was walked through
            if (row.table, row.row_id) not in told:
                self._fault(row.table, row.row_id, row.words)
        self._report.retained = {name: count for name, count in self._retained.missed.items() if count}
        self._report.seals = dict(self._seals.opened)
        return self._report

    # -- reading

    def _pages(self, unit: Unit, reader: Reader[Row], *, only: str = "true") -> Iterator[list[Row]]:
        for row in reader.nameless(unit):
            self._fault(reader.table, row, "its id is no text")
        after = b""
        while (page := reader.page(unit, after, _PAGE, only=only)).last:
            self._note(reader, page)
            yield page.rows
            after = page.last
            self._on_progress(self._report)

    def _every(self, unit: Unit, reader: Reader[Row]) -> list[Row]:
        return [row for page in self._pages(unit, reader) for row in page]

    def _of(self, unit: Unit, reader: Reader[Row], column: str, ids: Sequence[str]) -> list[Row]:
        found = reader.of(unit, column, ids)
        self._note(reader, found)
        return found.rows

    def _note(self, reader: Reader[Row], found: Found[Row]) -> None:
        for row, problem in found.unreadable:
            self._fault(reader.table, row, problem)

    def _fault(self, table: str, row: str, problem: str) -> None:
        self._report.faults.append(Fault(table, row, problem))

    def _add(self, problems: Iterable[tuple[str, str, str]]) -> None:
        for table, row, problem in problems:
            self._fault(table, row, problem)

    def _each(self, table: str, row: str, problems: Iterator[str]) -> None:
        """Every problem of one row; a row that cannot be understood is a fault, and no more than that."""
        try:
            for problem in problems:
                self._fault(table, row, problem)
        except UNREADABLE as broken:
            self._fault(table, row, f"it cannot be understood: {type(broken).__name__}")

    def _find_beside(self, unit: Unit) -> None:
        """Which messages name a payment beside the one that they are kept with, against the table that says so."""
        pairs: dict[tuple[str, str], bool] = {}  #: whether there must be a row: not of before there was the table
        for message_id, home, outcomes in audits.named_beside(unit):
            told = [e for e in outcomes if isinstance(e, dict)] if isinstance(outcomes, list) else []
            for payment_id in {str(entry["payment"]) for entry in told if "payment" in entry} - {home}:
                self._beside[payment_id].append(message_id)
                is_counted = any("number" in entry for entry in told if entry.get("payment") == payment_id)
                pairs[payment_id, message_id] = is_counted
        found = set(audits.also_about(unit))
        for _payment_id, message_id in found - pairs.keys():
            self._fault("message_payment", message_id, "it names a payment that the message was not decided about")
        for pair in (pair for pair, is_counted in pairs.items() if is_counted and pair not in found):
            self._fault("message_payment", pair[1], "that the message is also about another payment is gone")

    # -- payments

    def _check_payments(self, unit: Unit, found: list[Payment], *, is_alone: bool = False) -> None:
        ids = [payment.id for payment in found]
        home: defaultdict[str, list[InboxMessage]] = defaultdict(list)
        messages: dict[str, InboxMessage] = {}
        for message in self._of(unit, _MESSAGES, "payment_id", ids):
            messages[message.id] = message
            home[str(message.payment_id)].append(message)
        beside = {each for payment_id in ids for each in self._beside.get(payment_id, ())} - messages.keys()
        messages |= {m.id: m for m in self._of(unit, _MESSAGES, "id", sorted(beside))}
        chains = _by(self._of(unit, _TRANSITIONS, "payment_id", ids), lambda link: link.payment_id)
        owed = _by(self._of(unit, _OUTBOX, "payment_id", ids), lambda effect: str(effect.payment_id))
        links = [link for chain in chains.values() for link in chain]
        effects_of_page = [effect for effects in owed.values() for effect in effects]
        causes = ({link.cause for link in links} | {effect.cause for effect in effects_of_page}) - messages.keys()
        evidence = messages | {m.id: m for m in self._of(unit, _MESSAGES, "id", sorted(causes))}
        checked = messages.values() if is_alone else [m for each in home.values() for m in each]
        known = self._known(unit, list(checked), found, links, effects_of_page)
        for message in checked:
            self._check_message(message, known)
        tries = self._tries(unit, effects_of_page)
        others, readings = Others(unit, self._kinds), dict[str, Reading]()
        others.expect(found)
        for payment in found:
            chain = sorted(chains.get(payment.id, ()), key=lambda link: link.number)
            mine = {m.id: m for m in home.get(payment.id, ())}
            mine |= {each: messages[each] for each in self._beside.get(payment.id, ()) if each in messages}
            effects = owed.get(payment.id, [])
            self._report.payments += 1
            self._check_chain(payment, chain, evidence)
            self._each("payment", payment.id, self._payment_problems(payment, chain, mine.values(), is_alone=is_alone))
            for effect in effects:
                self._check_effect(effect, tries.get(effect.id, []), evidence)
            self._read_again(unit, payment, list(mine.values()), chain, effects, others, readings)

    def _check_chain(self, payment: Payment, chain: Sequence[Transition], causes: Mapping[str, InboxMessage]) -> None:
        account = self._accounts.get(payment.account)
        lifecycle = account.provider.lifecycles.get(payment.kind) if account else None
        before: Transition | None = None
        for link in chain:
            self._report.transitions += 1
            problems = link_problems(
                payment, before, link, causes.get(link.cause), lifecycle, self._retained, self._seals
            )
            self._each("transition", link.id, problems)
            before = link

    def _payment_problems(
        self, payment: Payment, chain: list[Transition], mine: Iterable[InboxMessage], *, is_alone: bool
    ) -> Iterator[str]:
        yield from payment_problems(payment, chain, self._retained, self._seals)
        told = sum(entry.get("payment") == payment.id for message in mine for entry in entries(message))
        untold = payment.statements - told
        if untold > 0 and self._retained.takes_messages:
            self._retained.missed["statements"] += untold
        elif untold and not (is_alone and untold > 0):
            yield f"{payment.statements} outcomes named it, {told} are kept"

    def _read_again(
        self,
        unit: Unit,
        payment: Payment,
        mine: list[InboxMessage],
        chain: list[Transition],
        effects: list[OutboxMessage],
        others: Others,
        readings: dict[str, Reading],
    ) -> None:
        account = self._accounts.get(payment.account)
        if account is None or payment.kind not in account.provider.lifecycles:
            self._report.not_readable += payment.statements
            return
        try:
            found = Replay(unit, account.provider, others, readings, is_live=account.is_live).run(
                payment, mine, chain, effects
            )
        except UNREADABLE as broken:
            self._fault("payment", payment.id, f"its messages cannot be read again: {type(broken).__name__}")
            return
        self._report.read_again += found.read
        self._report.not_readable += found.unread
        self._add(found.problems)

    # -- messages

    def _check_other_messages(self, unit: Unit, messages: list[InboxMessage]) -> None:
        """Messages about no payment: one that was decided to say nothing must say nothing."""
        known = self._known(unit, messages)
        for message in messages:
            self._check_message(message, known)
            if message.status == InboxStatus.DECIDED and message.decision == Outcome.NOTED:
                self._each("inbox_message", message.id, self._note_problems(unit, message))

    def _note_problems(self, unit: Unit, message: InboxMessage) -> Iterator[str]:
        account = self._accounts.get(message.account)
        if account is None or message.scrubbed_at is not None:
            self._report.not_readable += 1
        elif replay.says_of_payments(unit, account.provider, message):
            yield "read again, it names a payment's state, and it was decided to say nothing"
        else:
            self._report.read_again += 1

    def _known(
        self,
        unit: Unit,
        messages: Sequence[InboxMessage],
        found: Sequence[Payment] = (),
        links: Sequence[Transition] = (),
        effects: Sequence[OutboxMessage] = (),
    ) -> _Known:
        """Which rows that the outcomes name there are: those at hand, and what the database holds of the others."""
        known = _Known(
            {payment.id for payment in found},
            {(effect.cause, effect.id) for effect in effects},
            {(link.cause, link.payment_id, str(link.number)) for link in links},
        )
        told = [(message.id, entry) for message in messages for entry in entries(message)]
        named = {str(entry["payment"]) for _, entry in told if "payment" in entry} - known.payments
        moved = {
            cause
            for cause, entry in told
            if "transition" in entry and (cause, str(entry.get("payment")), str(entry["transition"])) not in known.moved
        }
        owed = [an_id for cause, entry in told for an_id in texts(entry, "outbox") if (cause, an_id) not in known.owed]
        if named:
            known.payments.update(payments.existing(unit, list(named)))
        if owed:
            known.owed.update(outbox.causes_of(unit, owed))
        if moved:
            rows = storage_transitions.caused_by(unit, list(moved))
            known.moved.update((cause, payment_id, str(number)) for cause, payment_id, number in rows)
        return known

    def _check_message(self, message: InboxMessage, known: _Known) -> None:
        self._report.messages += 1
        self._each("inbox_message", message.id, self._message_problems(message, known))

    def _message_problems(self, message: InboxMessage, known: _Known) -> Iterator[str]:
        yield from message_problems(message, self._seals, self._retained)
        if message.source in _SIGNED and message.scrubbed_at is None:
            yield from self._signature_problems(message)
        yield from outcome_problems(message, known.payments, known.owed, known.moved, self._retained)
        yield from replay_problems(message, self._actions.count("replay", message.id))
        if message.source == Source.OPERATOR and message.scrubbed_at is None:
            statement = statements.decode(message.body)
            if isinstance(statement, statements.Resolution) and not self._actions.has(
                "resolve", str(message.about), statement.actor, statement.reason
            ):
                yield f"{statement.actor} resolved it, and that stands in no operator action"

    def _signature_problems(self, message: InboxMessage) -> Iterator[str]:
        account = self._accounts.get(message.account)
        key = account.keys.get(message.key_id or "") if account else None
        if account is None or key is None:
            name = message.key_id or "-"
            if f"{message.account}/{name}" in self._trust.retired_keys:
                self._report.unverifiable += 1
            else:
                yield f"its webhook key {name} is neither configured nor allowed as a retired key"
            return
        headers = tuple((name, self._credentials.shown(value, key)) for name, value in message.headers)
        delivery = Delivery(message.body, headers)
        try:
            verified = account.provider.verify(delivery, KeyRing((key,)), account.window, message.received_at)
        except DeliveryRejected as rejected:
            yield f"the signature does not verify with key {key.id}: {rejected.reason}"
            return
        self._report.signatures += 1
        if verified.provider_time != message.provider_time:
            yield f"it is signed as of {verified.provider_time}, and {message.provider_time} is kept"
        identity = keepable.key(account.provider.delivery_key(delivery))
        if message.variant_of is None and identity != message.delivery_key:
            yield "its delivery key is not that of what was delivered"

    # -- effects

    def _tries(self, unit: Unit, owed: Sequence[OutboxMessage]) -> dict[str, list[DeliveryAttempt]]:
        found = self._of(unit, _ATTEMPTS, "outbox_id", [message.id for message in owed if message.attempts])
        return _by(found, lambda attempt: attempt.outbox_id)

    def _check_outbox(self, unit: Unit, owed: list[OutboxMessage], causes: Mapping[str, InboxMessage]) -> None:
        """What is owed about accounts."""
        causes = {m.id: m for m in self._of(unit, _MESSAGES, "id", [message.cause for message in owed])}
        tries = self._tries(unit, owed)
        for message in owed:
            self._check_effect(message, tries.get(message.id, []), causes)
            cause = causes.get(message.cause)
            if cause is not None and cause.scrubbed_at is None:
                self._each("outbox_message", message.id, _alarm_problems(message, cause))

    def _check_effect(
        self, message: OutboxMessage, tries: list[DeliveryAttempt], causes: Mapping[str, InboxMessage]
    ) -> None:
        self._report.outbox += 1
        redrives = self._actions.count("redrive", message.id)
        problems = outbox_problems(message, tries, causes.get(message.cause), self._retained, self._seals, redrives)
        self._each("outbox_message", message.id, problems)
        for attempt in tries:
            self._each("delivery_attempt", attempt.id, attempt_problems(attempt, message, self._seals))


def _alarm_problems(message: OutboxMessage, cause: InboxMessage) -> Iterator[str]:
    problem = replay.alarm_problem(message, cause)
    if problem is not None:
        yield problem


def _by(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found
