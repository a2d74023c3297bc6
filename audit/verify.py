"""Proves the history: every digest, signature, chain and payment recomputed from what is kept, first fault first."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from audit.problems import entries, link_problems, outbox_problems, outcome_problems, payment_problems, shown, texts
from audit.retained import Retained
from providers.contract import Delivery, Provider
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Source
from storage import history, inbox, outbox, payments, retention_runs, seals
from storage.engine import Database, Unit
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage, Payment, Transition
from storage.types import InboxStatus

_PAGE = 500

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
    retained: dict[str, int] = field(default_factory=dict)  #: what is missing by a rule of retention, and no fault
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
        self._retained = Retained(())

    def run(self) -> Report:
        """The report; everything holds exactly when it has no faults. Raises StorageUnavailable."""
        try:
            self._walk()
        except (ValueError, TypeError, LookupError) as broken:
            self._fault("-", "-", f"rows cannot be read: {type(broken).__name__}")
        return self._report

    def of_payment(self, payment_id: str) -> Report:
        """The report about one payment: its chain, the messages that it rests on, and what it made owed.

        What only a walk over everything can tell is left out: that no message was taken away which named it beside
        other payments. Raises NotFound and StorageUnavailable.
        """
        with self._database.read() as unit:
            payment = payments.get(unit, payment_id)
            self._retained = Retained(retention_runs.every(unit))
            try:
                self._check_messages(unit, inbox.concerning(unit, payment_id))
                self._told[payment_id] = payment.statements
                self._check_payments(unit, [payment])
                self._check_outbox(unit, outbox.of_payment(unit, payment_id))
            except (ValueError, TypeError, LookupError) as broken:
                self._fault("-", "-", f"rows cannot be read: {type(broken).__name__}")
            self._report.retained = {name: count for name, count in self._retained.missed.items() if count}
            self._name_unreadable(unit)
        return self._report

    def _walk(self) -> None:
        with self._database.read() as unit:  # one snapshot, so that a running service does not confuse the walk
            self._retained = Retained(retention_runs.every(unit))
            for messages in self._pages(lambda after: inbox.find(unit, after=after, limit=_PAGE)):
                self._check_messages(unit, messages)
            for found in self._pages(lambda after: payments.find(unit, after=after, limit=_PAGE)):
                self._check_payments(unit, found)
            for owed in self._pages(lambda after: outbox.find(unit, after=after, limit=_PAGE)):
                self._check_outbox(unit, owed)
            kept = history.count(unit)
            if kept != self._report.transitions:
                self._fault("transition", "-", f"{kept} are kept, {self._report.transitions} belong to payments")
            for run, problem in self._retained.problems():
                self._fault("retention_run", run, problem)
            self._report.retained = {name: count for name, count in self._retained.missed.items() if count}
            self._name_unreadable(unit)

    def _name_unreadable(self, unit: Unit) -> None:
        """Rows that were left out since they cannot be read are faults, before those that follow from them."""
        rows = {(each.table, each.row_id): each.words for each in unit.unreadable}
        self._report.faults[:0] = [Fault(table, row, words) for (table, row), words in rows.items()]

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
        named = {str(entry["payment"]) for m in messages for entry in entries(m) if "payment" in entry}
        existing = payments.existing(unit, list(named))
        told = {owed_id for m in messages for entry in entries(m) for owed_id in texts(entry, "outbox")}
        owed = outbox.causes_of(unit, list(told))
        moved = history.caused_by(unit, [m.id for m in messages])
        for message in messages:
            self._report.messages += 1
            for problem in (
                *self._message_problems(message),
                *outcome_problems(message, existing, owed, moved, self._retained),
            ):
                self._fault("inbox_message", message.id, problem)
            self._told.update(str(entry["payment"]) for entry in entries(message) if "payment" in entry)

    def _message_problems(self, message: InboxMessage) -> Iterator[str]:
        if message.scrubbed_at is not None:
            self._retained.missed["bodies"] += 1
            if message.body:
                yield "it is said to be scrubbed, and has a body"
            if not self._retained.has_body(message.id, message.scrubbed_at):
                yield "its body is gone, and no run of retention took it"
        elif seals.body_digest(message.body) != message.digest:
            yield "the body is not the one that was received"
        if seals.envelope_digest(message) != message.envelope_digest:
            yield "what was recorded with the message has changed"
        if message.status == InboxStatus.PENDING:
            if message.decision_digest is not None or message.decided_at is not None:
                yield "a decided message is pending again without a replay"
        elif seals.decision_digest(message) != message.decision_digest:
            yield "the decision has changed"
        if message.source in _SIGNED and message.scrubbed_at is None:
            yield from self._signature_problems(message)

    def _signature_problems(self, message: InboxMessage) -> Iterator[str]:
        account = self._accounts.get(message.account)
        key = account.keys.get(message.key_id or "") if account else None
        if account is None or key is None:
            self._report.unverifiable += 1
            return
        headers = tuple((name, shown(value, key)) for name, value in message.headers)
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
                for problem in link_problems(payment, before, link, causes.get(link.cause), lifecycle, self._retained):
                    self._fault("transition", link.id, problem)
                before = link
            for problem in payment_problems(payment, chain, self._retained):
                self._fault("payment", payment.id, problem)
            untold = payment.statements - self._told[payment.id]
            if untold > 0 and self._retained.takes_messages:
                self._retained.missed["statements"] += untold
            elif untold:
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
            for problem in outbox_problems(
                message, tries.get(message.id, []), causes.get(message.cause), self._retained
            ):
                self._fault("outbox_message", message.id, problem)
