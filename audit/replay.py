"""In-memory replay of a payment's kept messages by the worker's own code.

The result must be what is kept: outcomes, transitions, the payment and its effects. Texts for people may differ, since
another version of the program may have written them, and so may what nothing rests on.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from msgspec.structs import replace as with_fields

from providers.contract import Provider, Reading
from statemachine import own_statements
from statemachine.errors import ServiceError
from statemachine.observation import Observation
from statemachine.phases import ConflictPolicy, PartialCapture, Phase, Source
from storage import audits, payment_polls, payments
from storage.database import Unit, build_record, wrap_columns
from storage.ids import webhook_id
from storage.tables import InboxMessage, OutboxMessage, Payment, PaymentPoll, Transition
from storage.types import PollPriority
from worker import attempts
from worker.accounts import AccountRules, ApplySettings
from worker.effects import alarm_payload
from worker.payment_session import Session
from worker.process import MessageProcessor

#: One sink that takes every effect: the sinks of that time are not recorded.
_ANY_SINK: Final = ApplySettings(sinks=("*",))

#: More than any amount that is kept.
_ANY_MINOR: Final = 2**63

#: Columns of a payment that its statements decide. Left out are texts, and what the chain of transitions proves.
_PAYMENT_COLUMNS: Final = (
    *("account", "kind", "provider_ref", "reference", "alias", "names", "amount_minor", "currency"),
    *("authorised_minor", "captured_minor", "refunded_minor", "charged_back_minor", "disputed_minor"),
    *(
        "stated",
        "parts",
        "counts",
        "capture_by",
        "state",
        "phase",
        "state_as_of",
        "version",
        "review",
        "review_opened_at",
    ),
    *(
        "disputed",
        "accepted",
        "reviews",
        "failure_reason",
        "expires_at",
        "return_url",
        "description",
        "merchant_metadata",
        "created_at",
        "changed_at",
    ),
)
_payment_values: Final = itemgetter(*_PAYMENT_COLUMNS)

#: Columns of a transition besides its place in the chain and its texts.
_TRANSITION_COLUMNS: Final = (
    *(
        "from_state",
        "to_state",
        "phase",
        "via",
        "captured_minor",
        "refunded_minor",
        "charged_back_minor",
        "forced",
        "actor",
        "as_of",
        "source",
        "cause",
        "recorded_at",
    ),
)
_transition_values: Final = itemgetter(*_TRANSITION_COLUMNS)

#: Fields of its payment that every effect has.
_PAYLOAD_FIELDS: Final = (
    "payment",
    "account",
    "kind",
    "provider_ref",
    "reference",
    "amount_minor",
    "currency",
    "state",
    "phase",
)

#: Texts of a payload that another version of the program may have put otherwise.
_PAYLOAD_TEXTS: Final = frozenset({"reason"})

#: Keys of an outcome on which later rows rest.
_CONSEQUENCES: Final = ("state", "transition", "review", "effects")

#: So long after a unit of work began, what others committed meanwhile may still be seen in it.
_OVERLAP: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Belief:
    """Assumptions about other payments at the time of a statement.

    How they stood then is not kept. A payment may be older than its name at the provider, and payments of one unit of
    work begin at one instant.
    """

    knows_others: bool | None  #: all that are looked for are known, or none; None: those that had begun are
    has_namesakes: bool  #: those of the reference stand in the way


_BELIEFS: Final = tuple(_Belief(known, namesakes) for known in (None, False, True) for namesakes in (False, True))


class OtherPayments:
    """Payments that messages about another payment may name; each is read once.

    They are as they are now, and not as they were then.
    """

    def __init__(self, unit: Unit, kinds: Mapping[str, Sequence[str]]) -> None:
        """Take the kinds of each account's provider."""
        self._unit = unit
        self._kinds = kinds
        self._by_ref: dict[tuple[str, str, str], Payment | None] = {}
        self._by_id: dict[str, Payment | None] = {}
        self._oldest: dict[tuple[str, str, str], str | None] = {}  #: ids by account, kind and reference

    def prefetch(self, found: Sequence[Payment]) -> None:
        """Keep these payments, and read in bulk what else their messages may name."""
        refs: dict[tuple[str, str], set[str]] = {}
        references: dict[str, set[str]] = {}
        for payment in found:
            self._keep(payment)
            if payment.provider_ref is not None:
                refs.setdefault((payment.account, payment.kind), set()).add(payment.provider_ref)
            if payment.reference is not None:
                references.setdefault(payment.account, set()).add(payment.reference)
        for (account, own), named in refs.items():
            self._look_up(account, [kind for kind in self._kinds.get(account, ()) if kind != own], sorted(named))
        for account, of_account in references.items():
            self._find_oldest(account, self._kinds.get(account, ()), sorted(of_account))

    def _look_up(self, account: str, kinds: Sequence[str], refs: Sequence[str]) -> None:
        if not kinds:
            return
        for kind in kinds:
            for ref in refs:
                self._by_ref.setdefault((account, kind, ref), None)
        for other in payments.named(self._unit, account, kinds, refs):
            self._keep(other)

    def _find_oldest(self, account: str, kinds: Sequence[str], references: Sequence[str]) -> None:
        self._oldest.update(dict.fromkeys((account, kind, reference) for kind in kinds for reference in references))
        for kind, reference, payment_id in audits.oldest_of_references(self._unit, account, kinds, references):
            self._oldest[account, kind, reference] = payment_id

    def _keep(self, payment: Payment) -> None:
        self._by_id[payment.id] = payment
        if payment.provider_ref is not None:
            self._by_ref[payment.account, payment.kind, payment.provider_ref] = payment

    def by_ref(self, account: str, kind: str, ref: str) -> Payment | None:
        """Return the payment with this name of the provider's."""
        key = (account, kind, ref)
        if key not in self._by_ref:
            self._look_up(account, self._kinds.get(account, ()), [ref])
        return self._by_ref.get(key)

    def by_name(self, account: str, kinds: Sequence[str], name: str) -> Payment | None:
        """Return the payment with this further name."""
        found = payments.by_name(self._unit, account, kinds, name)
        if found is not None:
            self._keep(found)
        return found

    def by_reference(self, account: str, kinds: Sequence[str], reference: str) -> list[Payment]:
        """Return the oldest payment with the reference, if there is one: one is enough."""
        unknown = [kind for kind in kinds if (account, kind, reference) not in self._oldest]
        if unknown:
            self._find_oldest(account, unknown, [reference])
        found = [an_id for kind in kinds if (an_id := self._oldest[account, kind, reference]) is not None]
        oldest = self.by_id(min(found)) if found else None
        return [] if oldest is None else [oldest]

    def by_id(self, payment_id: str) -> Payment | None:
        """Return the payment with this id."""
        if payment_id not in self._by_id:
            self._by_id[payment_id] = payments.known(self._unit, payment_id)
        return self._by_id[payment_id]


class _ReplaySession(Session):
    """Session over one payment as it was at each statement; writes nothing."""

    is_rerun = True

    def __init__(self, unit: Unit, kept: Payment, others: OtherPayments) -> None:
        super().__init__(unit, kept.created_at)
        self._kept = kept
        self._others = others
        self.payment: Payment | None = None  #: as replayed; None until its first statement
        self.poll = payment_polls.begin(kept.id, kept.account, kept.created_at)
        self.links: list[Transition] = []
        self.effects: dict[tuple[str, int], OutboxMessage] = {}
        self.followed: set[str] = set()  #: effects that followed from the statement, owed before or not
        self.belief = _BELIEFS[0]
        self.is_doubtful = False  #: other payments were asked for, so that another belief may come out otherwise
        self.had_namesakes = False  #: namesakes were needed once, so that which one it was is not known

    def set_time(self, moment: str) -> None:
        """Decide the next statement at this instant."""
        self.now, self.moment = datetime.fromisoformat(moment), moment
        self.followed = set()

    # -- finding

    def poll_of(self, payment: Payment) -> PaymentPoll:
        if payment is self.payment:
            return self.poll
        return payment_polls.begin(payment.id, payment.account, self.now)

    def known(self, payment_id: str) -> Payment | None:
        if payment_id == self._kept.id:
            return self.payment
        return self._if_known_then(self._others.by_id(payment_id))

    def _if_known_then(self, other: Payment | None) -> Payment | None:
        """Copy another payment, if it is believed to have had its name by then."""
        if other is None or other.id == self._kept.id or other.created_at > self.now + _OVERLAP:
            return None
        self.is_doubtful = True
        is_known = self.belief.knows_others
        if not (other.created_at <= self.now if is_known is None else is_known):
            return None
        return wrap_columns(Payment, dict(other.__dict__))

    def _is(self, account: str, kinds: Sequence[str]) -> bool:
        payment = self.payment
        return payment is not None and payment.account == account and payment.kind in kinds

    def knows_ref(self, account: str, kinds: Sequence[str], ref: str) -> bool:
        return self.find_by_ref(account, kinds, ref) is not None

    def find_by_ref(self, account: str, kinds: Sequence[str], ref: str) -> Payment | None:
        for kind in kinds:
            if self._is(account, [kind]) and self.payment is not None and self.payment.provider_ref == ref:
                return self.payment
            other = self._if_known_then(self._others.by_ref(account, kind, ref))
            if other is not None:
                return other
        return None

    def find_by_name(self, account: str, kinds: Sequence[str], name: str) -> Payment | None:
        payment = self.payment
        if payment is not None and self._is(account, kinds) and attempts.entry_of(payment, name) is not None:
            return payment
        if self._kept.kind in kinds and attempts.has_name(self._kept, name):
            return None  # it will be this payment's
        return self._if_known_then(self._others.by_name(account, kinds, name))

    def add_name(self, payment: Payment, name: str) -> None: ...

    def find_wish(self, payment: Payment, reference: str) -> Payment | None:
        """Return the wish that the payment has become, as it was without an answer."""
        if payment is not self.payment or self._kept.provider_ref is not None or payment.provider_ref is None:
            return None
        wish = self._if_known_then(self._others.by_ref(payment.account, payment.kind, payment.provider_ref))
        if wish is None or wish.reference != reference:
            return None
        wish.provider_ref = wish.state = wish.review = wish.names = wish.counts = wish.parts = wish.stated = None
        wish.phase = Phase.OPEN.value
        return wish

    def release(self, payment: Payment, ref: str) -> None: ...

    def find_unbound(self, account: str, kinds: Sequence[str], reference: str) -> Payment | None:
        payment = self.find_by_reference(account, kinds, reference)
        return payment if payment is not None and payment.provider_ref is None else None

    def find_by_reference(self, account: str, kinds: Sequence[str], reference: str) -> Payment | None:
        is_named = self._is(account, kinds) and self.payment is not None and self.payment.reference == reference
        return self.payment if is_named else None

    def find_by_alias(self, account: str, kinds: Sequence[str], alias: str) -> Payment | None:
        is_named = self._is(account, kinds) and self.payment is not None and self.payment.alias == alias
        return self.payment if is_named else None

    def namesakes(self, payment: Payment, kinds: Sequence[str], reference: str) -> list[Payment]:
        """Return other payments of the reference, or none, as is believed.

        How they stood then is not known, so that both answers may be right.
        """
        found = [
            copy
            for other in self._others.by_reference(payment.account, kinds, reference)
            if other.id < self._kept.id and (copy := self._if_known_then(other)) is not None
        ]
        for copy in found:
            copy.phase, copy.review, copy.accepted = Phase.OPEN.value, None, None
        return found if self.belief.has_namesakes else []

    def has_unbound(self, account: str, kinds: Sequence[str], since: datetime) -> bool:
        return False  # the message was decided, so none was in the way

    # -- changing

    def add(self, payment: Payment) -> None:
        if self.payment is None:
            payment.id = self._kept.id
            self.payment = payment

    def save(self, payment: Payment) -> None: ...

    def ask_at(self, payment: Payment, when: datetime, priority: PollPriority) -> bool:
        return False

    def ask_about_id(self, account: str, kind: str, ref: str) -> bool:
        return True

    def ask_account(self, account: str, phases: Sequence[str], limit: int) -> int:
        return 0

    def append(self, transition: Transition) -> None:
        if transition.payment_id == self._kept.id:
            self.links.append(transition)

    def is_owed(self, payment_id: str, effect: str, sink: str, occurrence: int) -> bool:
        if payment_id != self._kept.id:
            return True
        self.followed.add(effect)
        return (effect, occurrence) in self.effects

    def next_owed(self, payment_id: str) -> int:
        return len(self.effects) + 1

    def owe(self, message: OutboxMessage) -> None:
        self.effects[message.effect, message.occurrence] = message

    def finish(self, message: InboxMessage) -> None: ...

    def postpone(self, message: InboxMessage, until: datetime, why: str) -> None: ...

    def reopen_awaiting(self, account: str, awaited: object) -> None: ...


@dataclass(slots=True)
class ReplayStep:
    """One decision of one message about the payment."""

    message: InboxMessage
    entries: list[dict[str, Any]]
    is_last: bool  #: the message was not decided again later

    @property
    def number(self) -> int:
        """Number of the first among the payment's statements; 0 where it is not kept."""
        found = self.entries[0].get("number")
        return found if isinstance(found, int) else 0


@dataclass(slots=True)
class ReplayResult:
    """Counts and problems of replaying one payment's messages."""

    payment: Payment
    links: Sequence[Transition]  #: as kept
    effects: Sequence[OutboxMessage]  #: as kept
    read: int = 0  #: statements that were decided again
    unread: int = 0  #: statements whose bytes are gone, or that come after such a one
    problems: list[tuple[str, str, str]] = field(default_factory=list)  #: table, row, problem


class PaymentReplay:
    """Decides one payment's messages again. Raises what broken rows raise."""

    def __init__(
        self,
        unit: Unit,
        provider: Provider,
        others: OtherPayments,
        readings: dict[str, Reading],
        *,
        is_live: bool | None,
    ) -> None:
        self._unit = unit
        self._others = others
        self._readings = readings  #: by message, of those that are about several payments
        self._rules = AccountRules(provider, lambda _payment, _poll, _now: None, is_live=is_live)

    def run(
        self,
        payment: Payment,
        statements: int | None,
        messages: Sequence[InboxMessage],
        links: Sequence[Transition],
        effects: Sequence[OutboxMessage],
    ) -> ReplayResult:
        """Replay the payment's messages, and compare the result with what is kept.

        `statements` is how many outcomes named it, if that is kept: where some are gone, the result must differ.
        """
        result = ReplayResult(payment, links, effects)
        session = _ReplaySession(self._unit, payment, self._others)
        steps = sorted(_steps(payment.id, messages), key=lambda step: (step.number, step.entries[0]["at"]))
        expected = 1
        is_whole = True
        for step in steps:
            is_gap = step.number not in (0, expected)
            if step.message.scrubbed_at is not None or is_gap:
                is_whole = False
            expected += len(step.entries)
            if not is_whole:
                result.unread += len(step.entries)
                if step.message.scrubbed_at is None:
                    self._check_state(result, step)
                continue
            result.read += len(step.entries)
            if not self._replay(result, session, step):
                return result
        if is_whole and statements is not None and expected == statements + 1:
            _compare(result, session, statements)
        return result

    def _replay(self, result: ReplayResult, session: _ReplaySession, step: ReplayStep) -> bool:
        """Decide one step again; return False on a difference.

        After one nothing more can be compared.
        """
        at = 0
        while at < len(step.entries):
            before = _snapshot(session)
            count, problem = self._decide_as_believed(result, session, step, at)
            if problem is not None:
                if step.is_last or any(name in step.entries[at] for name in _CONSEQUENCES):
                    result.problems.append(_message_problem(step.message, problem))
                    return False
                _restore(session, before, statements=1)  # nothing rested on it, and it was read again later
            at += max(count, 1)
        return True

    def _decide_as_believed(
        self, result: ReplayResult, session: _ReplaySession, step: ReplayStep, at: int
    ) -> tuple[int, str | None]:
        """Decide again under the first belief that agrees with what is kept.

        Where none does, return what differs under the most likely one.
        """
        before = _snapshot(session)
        session.belief, session.is_doubtful = _BELIEFS[0], False
        count, problem = first = self._decide(result, session, step, at)
        for belief in _BELIEFS[1:]:
            if problem is None or not session.is_doubtful:
                break
            _restore(session, before)
            session.belief = belief
            count, problem = self._decide(result, session, step, at)
        if problem is not None:
            # what the account accepted then is not known: less captured than asked for, or a little more
            _restore(session, before)
            session.belief = _BELIEFS[0]
            count, problem = self._decide(result, session, step, at, is_lenient=True)
        if problem is not None:
            return first
        session.had_namesakes |= session.belief.has_namesakes
        return count, None

    def _decide(
        self, result: ReplayResult, session: _ReplaySession, step: ReplayStep, at: int, *, is_lenient: bool = False
    ) -> tuple[int, str | None]:
        """Decide a step again from an entry on.

        Returns the number of its statements about the payment, and the first difference.
        """
        message, payment_id = step.message, result.payment.id
        session.set_time(str(step.entries[at]["at"]))
        copy = wrap_columns(InboxMessage, {**message.__dict__, "outcomes": []})
        rules = self._rules_of(result, step)
        if is_lenient:
            rules = replace(rules, partial_capture=PartialCapture.ACCEPT, tolerance_minor=_ANY_MINOR)
        accounts = {message.account: rules}
        try:
            MessageProcessor(session, copy, accounts, _ANY_SINK, self._reading(result.payment, message)).run()
        except ServiceError as fault:
            return 0, f"it cannot be decided again: {fault.code}"
        replayed = [entry for entry in copy.outcomes if entry.get("payment") == payment_id]
        if not replayed:
            return 0, f"it says nothing about payment {payment_id}"
        pairs = zip(step.entries[at : at + len(replayed)], replayed, strict=False)
        differences = (_difference(kept, again, session.followed) for kept, again in pairs)
        return len(replayed), next((words for words in differences if words is not None), None)

    def _rules_of(self, result: ReplayResult, step: ReplayStep) -> AccountRules:
        """Return the account's rules, with the policies that the step shows.

        Today's say nothing of then: a kept transition that was forced is one that the policy could force.
        """
        forced = {link.number for link in result.links if link.forced and link.source != Source.OPERATOR}
        is_trusting = any(entry.get("transition") in forced for entry in step.entries)
        is_hint = any(entry.get("hint") for entry in step.entries)
        policy = ConflictPolicy.TRUST_PROVIDER if is_trusting else self._rules.policy
        return replace(self._rules, policy=policy, believes_push=not is_hint)

    def _reading(self, payment: Payment, message: InboxMessage) -> Reading | None:
        """Return what a page of a list says of this payment alone; else None."""
        if message.source != Source.LIST:
            return None
        reading = self._readings.get(message.id)
        if reading is None:
            session = _ReplaySession(self._unit, payment, self._others)
            processor = MessageProcessor(session, message, {message.account: self._rules}, _ANY_SINK)
            reading = self._readings[message.id] = processor.reading(self._rules)
        if len(reading.observations) < 2:
            return reading
        return with_fields(reading, observations=tuple(o for o in reading.observations if _may_mean(o, payment)))

    def _check_state(self, result: ReplayResult, step: ReplayStep) -> None:
        """Check a message whose predecessors are gone: it must name its decided state."""
        states = {str(entry["state"]) for entry in step.entries if "state" in entry}
        if states and not states <= set(self._named_states(step.message)):
            result.problems.append(_message_problem(step.message, f"it does not say {', '.join(sorted(states))}"))

    def _named_states(self, message: InboxMessage) -> Iterator[str]:
        processor = _lone_processor(self._unit, message, self._rules, self._others)
        if processor.is_ours:
            statement = own_statements.decode(message.body)
            if isinstance(statement, own_statements.Resolution):
                yield statement.state
            elif isinstance(statement, own_statements.CallFailed):
                yield "not_created"
            return
        yield from (seen.status for seen in processor.reading(self._rules).observations if seen.status is not None)


def names_payment_state(unit: Unit, provider: Provider, message: InboxMessage) -> bool:
    """Return whether the message by itself names the state of a payment."""
    rules = AccountRules(provider, lambda _payment, _poll, _now: None)
    processor = _lone_processor(unit, message, rules, OtherPayments(unit, {}))
    is_hint = message.variant_of is not None or any(entry.get("hint") for entry in message.outcomes)
    if processor.is_ours or message.source == Source.RETURN or is_hint:
        return False
    said = [seen for seen in processor.reading(rules).observations if seen.status is not None]
    lifecycles = provider.lifecycles
    return any(
        seen.kind is None or seen.kind not in lifecycles or not lifecycles[seen.kind].belongs_to for seen in said
    )


def alarm_problem(message: OutboxMessage, cause: InboxMessage) -> str | None:
    """Compare an account's outbox message with its alarm; return the difference."""
    try:
        statement = own_statements.decode(cause.body)
    except own_statements.UnreadableStatement:
        statement = None
    if not isinstance(statement, own_statements.AccountAlarm):
        return f"message {cause.id}, which made it owed, is no alarm"
    again = json.loads(alarm_payload(cause.account, statement, message.created_at))
    kept = json.loads(message.payload)
    return None if kept == again else f"it does not say what message {cause.id} says"


def _lone_processor(unit: Unit, message: InboxMessage, rules: AccountRules, others: OtherPayments) -> MessageProcessor:
    """Build a processor that only reads the message, with no payment beside it."""
    session = _ReplaySession(unit, build_record(Payment, {"id": "", "created_at": message.received_at}), others)
    return MessageProcessor(session, message, {message.account: rules}, _ANY_SINK)


def _steps(payment_id: str, messages: Sequence[InboxMessage]) -> Iterator[ReplayStep]:
    """Group each message's outcomes about the payment by decision.

    Outcomes of one decision have one time and follow each other among the payment's statements. A replay may have the
    same time, where the clock was set back.
    """
    for message in messages:
        steps: list[ReplayStep] = []
        before: Mapping[str, Any] | None = None
        for entry in message.outcomes:
            if entry.get("payment") != payment_id:
                continue
            if before is None or not _goes_on(before, entry):
                steps.append(ReplayStep(message, [], is_last=False))
            steps[-1].entries.append(entry)
            before = entry
        if steps:
            steps[-1].is_last = steps[-1].entries[0]["at"] == message.outcomes[-1]["at"]
        yield from steps


def _goes_on(before: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    first, second = before.get("number"), entry.get("number")
    is_next = not isinstance(first, int) or second == first + 1
    return is_next and bool(entry["at"] == before["at"])


def _message_problem(message: InboxMessage, problem: str) -> tuple[str, str, str]:
    return ("inbox_message", message.id, f"read again, {problem}")


def _difference(kept: Mapping[str, Any], again: Mapping[str, Any], followed: set[str]) -> str | None:
    """Compare a kept outcome with the replayed one; return the first difference."""
    for name, word in (("outcome", "decision"), ("state", "state"), ("transition", "transition"), ("review", "review")):
        if kept.get(name) != again.get(name):
            return f"its {word} is {again.get(name) or 'none'}, and {kept.get(name) or 'none'} is kept"
    if bool(kept.get("state_confirmed")) != bool(again.get("state_confirmed")):
        return "it confirms a state, and that is not kept" if again.get("state_confirmed") else "it confirms no state"
    if ("withheld_reason" in kept) != ("withheld_reason" in again):
        return "it withholds effects, and that is not kept" if "withheld_reason" in again else "it withholds no effects"
    if _names_another(kept) != _names_another(again):
        return (
            "it says another payment has its reference, and that is not kept"
            if _names_another(again)
            else "it does not say that another payment has its reference"
        )
    owed = set(kept.get("effects") or ())
    if not owed <= followed:
        return f"it owes no {', '.join(sorted(owed - followed))}"
    missing = set(again.get("effects") or ()) - owed - set(kept.get("untaken") or ())
    if missing:
        return f"it owes {', '.join(sorted(missing))}, which it was not decided to owe"
    return None


def _names_another(entry: Mapping[str, Any]) -> bool:
    """Return whether the review is also about another payment of the reference."""
    return any(point.startswith("reference:") for point in entry.get("disputed") or ())


def _may_mean(observation: Observation, payment: Payment) -> bool:
    if observation.provider_ref is not None and attempts.has_name(payment, observation.provider_ref):
        return True
    return observation.reference is not None and observation.reference == payment.reference


_Snapshot = tuple[dict[str, Any] | None, int, int, dict[tuple[str, int], OutboxMessage]]


def _snapshot(session: _ReplaySession) -> _Snapshot:
    payment = None if session.payment is None else dict(session.payment.__dict__)
    return payment, session.poll.statements, len(session.links), dict(session.effects)


def _restore(session: _ReplaySession, before: _Snapshot, *, statements: int = 0) -> None:
    """Restore the payment, its links and effects; add `statements` to its count."""
    payment, said, links, effects = before
    session.poll.statements = said + statements
    if payment is None:
        session.payment = None
    elif session.payment is not None:
        session.payment.__dict__.update(payment)
    del session.links[links:]
    session.effects = dict(effects)


def _compare(result: ReplayResult, session: _ReplaySession, statements: int) -> None:
    """Compare the replayed payment, transitions and effects with those kept."""
    kept, again = result.payment, session.payment
    if again is not None and session.poll.statements != statements:
        words = f"by its messages {session.poll.statements} outcomes named it, and {statements} are kept"
        result.problems.append(("payment_poll", kept.id, words))
    if again is not None and _payment_values(kept.__dict__) != _payment_values(again.__dict__):
        for name in _PAYMENT_COLUMNS:
            if session.had_namesakes and name in ("disputed", "accepted"):
                continue  # they name another payment of the reference: which one it was is not known
            if getattr(kept, name) != getattr(again, name):
                words = f"by its messages its {name} is {getattr(again, name)}, and {getattr(kept, name)} is kept"
                result.problems.append(("payment", kept.id, words))
    links = {link.number: link for link in result.links}
    for link in session.links:
        same = links.get(link.number)
        if same is None or _transition_values(same.__dict__) == _transition_values(link.__dict__):
            continue
        for name in _TRANSITION_COLUMNS:
            if getattr(same, name) != getattr(link, name):
                words = f"by its message its {name} is {getattr(link, name)}, and {getattr(same, name)} is kept"
                result.problems.append(("transition", same.id, words))
    for message in result.effects:
        owed = session.effects.get((message.effect, message.occurrence))
        problem = "its payment's messages do not make it owed" if owed is None else _payload_problem(message, owed)
        if problem:
            result.problems.append(("outbox_message", message.id, problem))


def _payload_problem(kept: OutboxMessage, again: OutboxMessage) -> str | None:
    if kept.cause != again.cause:
        return None  # it was owed to another sink first, and its payload is of that time
    said, should = json.loads(kept.payload), json.loads(again.payload)
    data, right = said["data"], should["data"]
    if (said["type"], said["timestamp"]) != (should["type"], should["timestamp"]):
        return "it is of another effect or instant than its message"
    if kept.webhook_id not in (None, webhook_id(str(data.get("effect_id")), kept.sink)):
        return "its id is not that of its effect and sink"
    for name in {*_PAYLOAD_FIELDS, *(data.keys() & right.keys())} - _PAYLOAD_TEXTS:
        if data.get(name) != right.get(name):
            return f"its {name} is {data.get(name)}, and by its message {right.get(name)}"
    return None
