"""Reads the kept messages of a payment again and decides them again, by the worker's own code, in memory.

What comes out must be what is kept: outcomes, transitions, the payment and its effects. Words may differ, since another
version of the program may have written them, and so may what nothing rests on.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from msgspec.structs import replace as with_fields

from providers.contract import Provider, Reading
from statemachine import statements
from statemachine.errors import ServiceError
from statemachine.observation import Observation
from statemachine.phases import ConflictPolicy, Phase, Source
from storage import audits, payments
from storage.database import Unit, made, unwatched
from storage.ids import webhook_id
from storage.tables import InboxMessage, OutboxMessage, Payment, Transition
from storage.types import PollPriority
from worker.accounts import AccountRules, ApplySettings
from worker.effects import alarm_payload
from worker.process import MessageProcessor
from worker.session import Session

#: One sink that takes every effect: which sinks there were then stands nowhere.
_EVERY_SINK: Final = ApplySettings(sinks=("*",))

#: What a payment's statements decide, as it is kept. Left out are words, and what the chain of transitions proves.
_DECIDED: Final = (
    *("account", "kind", "provider_ref", "reference", "alias", "amount_minor", "currency"),
    *("captured_minor", "refunded_minor", "state", "phase", "state_as_of", "version", "review", "review_opened_at"),
    *(
        "disputed",
        "accepted",
        "reviews",
        "statements",
        "failure_reason",
        "expires_at",
        "return_url",
        "created_at",
        "changed_at",
    ),
)
_decided: Final = itemgetter(*_DECIDED)

#: What a transition says besides its place in the chain and its words.
_MOVE: Final = (
    *("from_state", "to_state", "phase", "via", "forced", "actor", "as_of", "source", "cause", "recorded_at"),
)
_moved: Final = itemgetter(*_MOVE)

#: What an effect says of its payment, whatever else it says.
_TOLD: Final = ("payment", "account", "kind", "provider_ref", "reference", "amount_minor", "currency", "state", "phase")

#: Words of a payload that another version of the program may have put otherwise.
_WORDS: Final = frozenset({"reason"})

_CONSEQUENCES: Final = ("state", "transition", "review", "effects")


class Others:
    """Payments as they are now that stood beside the one that is read again; read once each."""

    def __init__(self, unit: Unit, kinds: Mapping[str, Sequence[str]]) -> None:
        """`kinds` are those of each account's provider."""
        self._unit = unit
        self._kinds = kinds
        self._by_ref: dict[tuple[str, str, str], Payment | None] = {}
        self._by_id: dict[str, Payment | None] = {}
        self._oldest: dict[tuple[str, str, str], str | None] = {}  #: ids by account, kind and reference

    def expect(self, found: Sequence[Payment]) -> None:
        """Keep these payments, and read with a few statements what their messages are likely to name besides."""
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
        for account, given in references.items():
            self._find_oldest(account, self._kinds.get(account, ()), sorted(given))

    def _look_up(self, account: str, kinds: Sequence[str], refs: Sequence[str]) -> None:
        if not kinds:
            return
        for kind in kinds:
            for ref in refs:
                self._by_ref.setdefault((account, kind, ref), None)
        for other in payments.named(self._unit, account, kinds, refs):
            self._keep(other)

    def _find_oldest(self, account: str, kinds: Sequence[str], references: Sequence[str]) -> None:
        self._oldest.update(dict.fromkeys((account, kind, each) for kind in kinds for each in references))
        for kind, reference, payment_id in audits.oldest_of_references(self._unit, account, kinds, references):
            self._oldest[account, kind, reference] = payment_id

    def _keep(self, payment: Payment) -> None:
        self._by_id[payment.id] = payment
        if payment.provider_ref is not None:
            self._by_ref[payment.account, payment.kind, payment.provider_ref] = payment

    def by_ref(self, account: str, kind: str, ref: str) -> Payment | None:
        """The payment that the provider calls so."""
        key = (account, kind, ref)
        if key not in self._by_ref:
            self._look_up(account, self._kinds.get(account, ()), [ref])
        return self._by_ref.get(key)

    def by_reference(self, account: str, kinds: Sequence[str], reference: str) -> list[Payment]:
        """The oldest payment of the reference: one that has it is enough."""
        unknown = [kind for kind in kinds if (account, kind, reference) not in self._oldest]
        if unknown:
            self._find_oldest(account, unknown, [reference])
        found = [an_id for kind in kinds if (an_id := self._oldest[account, kind, reference]) is not None]
        oldest = self.by_id(min(found)) if found else None
        return [] if oldest is None else [oldest]

    def by_id(self, payment_id: str) -> Payment | None:
        """The payment of this id."""
        if payment_id not in self._by_id:
            self._by_id[payment_id] = payments.known(self._unit, payment_id)
        return self._by_id[payment_id]


class _Rerun(Session):
    """One payment as it was at each statement, in place of the database; nothing is written."""

    is_rerun = True

    def __init__(self, unit: Unit, kept: Payment, others: Others) -> None:
        super().__init__(unit, kept.created_at)
        self._kept = kept
        self._others = others
        self.payment: Payment | None = None  #: None until its first statement
        self.links: list[Transition] = []
        self.effects: dict[tuple[str, int], OutboxMessage] = {}
        self.followed: set[str] = set()  #: effects that followed from the statement, owed before or not
        self.has_namesakes = False  #: other payments of the reference are believed to have stood in the way
        self.could_have_namesakes = False  #: there are such, and they were asked for
        self.had_namesakes = False  #: and that was needed once, so that which one it was is not known

    def at(self, moment: str) -> None:
        """Decide what comes next at this instant."""
        self.now, self.moment = datetime.fromisoformat(moment), moment
        self.followed = set()
        self.could_have_namesakes = False

    # -- finding

    def known(self, payment_id: str) -> Payment | None:
        if payment_id == self._kept.id:
            return self.payment
        return self._then(self._others.by_id(payment_id))

    def _then(self, other: Payment | None) -> Payment | None:
        """A copy of another payment, where it was known by then."""
        if other is None or other.id == self._kept.id or other.created_at > self.now:
            return None
        return unwatched(Payment, dict(other.__dict__))

    def _is(self, account: str, kinds: Sequence[str]) -> bool:
        payment = self.payment
        return payment is not None and payment.account == account and payment.kind in kinds

    def knows_ref(self, account: str, kinds: Sequence[str], ref: str) -> bool:
        return self.find_by_ref(account, kinds, ref) is not None

    def find_by_ref(self, account: str, kinds: Sequence[str], ref: str) -> Payment | None:
        for kind in kinds:
            if self._is(account, [kind]) and self.payment is not None and self.payment.provider_ref == ref:
                return self.payment
            other = self._then(self._others.by_ref(account, kind, ref))
            if other is not None:
                return other
        return None

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
        """Others of the reference as they are now; how they stood then is not known, so that both may be right."""
        found = [
            copy
            for other in self._others.by_reference(payment.account, kinds, reference)
            if other.id < self._kept.id and (copy := self._then(other)) is not None
        ]
        self.could_have_namesakes |= bool(found)
        for copy in found:
            copy.phase, copy.review, copy.accepted = Phase.OPEN.value, None, None
        return found if self.has_namesakes else []

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

    def also_about(self, message: InboxMessage, payment_ids: object) -> None: ...

    def put_off(self, message: InboxMessage, until: datetime, why: str) -> None: ...

    def reopen_awaiting(self, account: str, awaited: object) -> None: ...


@dataclass(slots=True)
class Step:
    """One decision of one message about the payment."""

    message: InboxMessage
    entries: list[dict[str, Any]]
    is_last: bool  #: the message was not decided again later

    @property
    def number(self) -> int:
        """Which statement about the payment the first of them was; 0 where that is not kept."""
        found = self.entries[0].get("number")
        return found if isinstance(found, int) else 0


@dataclass(slots=True)
class Reread:
    """The result of reading a payment's messages again."""

    payment: Payment
    links: Sequence[Transition]  #: as kept
    effects: Sequence[OutboxMessage]  #: as kept
    read: int = 0  #: statements that were decided again
    unread: int = 0  #: statements whose bytes are gone, or that come after such a one
    problems: list[tuple[str, str, str]] = field(default_factory=list)  #: table, row, problem


class Replay:
    """Decides one payment's messages again. Raises what broken rows raise."""

    def __init__(
        self, unit: Unit, provider: Provider, others: Others, readings: dict[str, Reading], *, is_live: bool | None
    ) -> None:
        self._unit = unit
        self._others = others
        self._readings = readings  #: by message, of those that are about several payments
        self._rules = AccountRules(provider, lambda _payment, _now: None, is_live=is_live)

    def run(
        self,
        payment: Payment,
        messages: Sequence[InboxMessage],
        links: Sequence[Transition],
        effects: Sequence[OutboxMessage],
    ) -> Reread:
        """Everything that the messages say about the payment, against what is kept."""
        found = Reread(payment, links, effects)
        rerun = _Rerun(self._unit, payment, self._others)
        steps = sorted(_steps(payment.id, messages), key=lambda step: (step.number, step.entries[0]["at"]))
        expected = 1
        is_whole = True
        for step in steps:
            is_gap = step.number not in (0, expected)
            if step.message.scrubbed_at is not None or is_gap:
                is_whole = False
            expected += len(step.entries)
            if not is_whole:
                found.unread += len(step.entries)
                if step.message.scrubbed_at is None:
                    self._weigh(found, step)
                continue
            found.read += len(step.entries)
            if not self._again(found, rerun, step):
                return found
        if is_whole and expected == payment.statements + 1:
            _compare(found, rerun)
        return found

    def _again(self, found: Reread, rerun: _Rerun, step: Step) -> bool:
        """False where what the message says is not what it was decided to say; then nothing after it can be told."""
        at = 0
        while at < len(step.entries):
            before = _snapshot(rerun)
            again, problem = self._decided(found, rerun, step, at)
            if problem is not None and rerun.could_have_namesakes:
                _restore(rerun, before)
                rerun.has_namesakes = rerun.had_namesakes = True
                again, problem = self._decided(found, rerun, step, at)
                rerun.has_namesakes = False
            if problem is not None:
                if step.is_last or any(name in step.entries[at] for name in _CONSEQUENCES):
                    found.problems.append(_says(step.message, problem))
                    return False
                _restore(rerun, before, statements=1)  # nothing rested on it, and it was read again later
            at += max(again, 1)
        return True

    def _decided(self, found: Reread, rerun: _Rerun, step: Step, at: int) -> tuple[int, str | None]:
        """Return how many statements the message makes about the payment from an entry on, and what differs."""
        message = step.message
        rerun.at(str(step.entries[at]["at"]))
        copy = unwatched(InboxMessage, {**message.__dict__, "outcomes": []})
        account = {message.account: self._rules_of(found, step)}
        try:
            MessageProcessor(rerun, copy, account, _EVERY_SINK, self._reading(found.payment, message)).run()
        except ServiceError as fault:
            return 0, f"it cannot be decided again: {fault.code}"
        again = [entry for entry in copy.outcomes if entry.get("payment") == found.payment.id]
        if not again:
            return 0, f"it says nothing about payment {found.payment.id}"
        differences = (
            _difference(kept, told, rerun.followed)
            for kept, told in zip(step.entries[at : at + len(again)], again, strict=False)
        )
        return len(again), next((words for words in differences if words is not None), None)

    def _rules_of(self, found: Reread, step: Step) -> AccountRules:
        """The account's policy of now says nothing of then: a move that policy forced is a move that it could force."""
        forced = {link.number for link in found.links if link.forced and link.source != Source.OPERATOR}
        is_trusting = any(entry.get("transition") in forced for entry in step.entries)
        return replace(self._rules, policy=ConflictPolicy.TRUST_PROVIDER) if is_trusting else self._rules

    def _reading(self, payment: Payment, message: InboxMessage) -> Reading | None:
        """Of a page of a list, what it says of this payment alone; None where there is nothing to leave out."""
        if message.source != Source.LIST:
            return None
        reading = self._readings.get(message.id)
        if reading is None:
            application = MessageProcessor(
                _Rerun(self._unit, payment, self._others), message, {message.account: self._rules}, _EVERY_SINK
            )
            reading = self._readings[message.id] = application.reading(self._rules)
        if len(reading.observations) < 2:
            return reading
        return with_fields(reading, observations=tuple(o for o in reading.observations if _may_mean(o, payment)))

    def _weigh(self, found: Reread, step: Step) -> None:
        """Of a message whose predecessors are gone: it names the state that it was decided to name."""
        states = {str(entry["state"]) for entry in step.entries if "state" in entry}
        if states and not states <= set(self._named(step.message)):
            found.problems.append(_says(step.message, f"it does not say {', '.join(sorted(states))}"))

    def _named(self, message: InboxMessage) -> Iterator[str]:
        account = {message.account: self._rules}
        rerun = _Rerun(self._unit, made(Payment, {"id": "", "created_at": message.received_at}), self._others)
        application = MessageProcessor(rerun, message, account, _EVERY_SINK)
        if application.is_ours:
            statement = statements.decode(message.body)
            if isinstance(statement, statements.Resolution):
                yield statement.state
            elif isinstance(statement, statements.CallFailed):
                yield "not_created"
            return
        yield from (o.status for o in application.reading(self._rules).observations if o.status is not None)


def says_of_payments(unit: Unit, provider: Provider, message: InboxMessage) -> bool:
    """True where the message names the state of a payment by itself, so that it is no mere note."""
    rules = AccountRules(provider, lambda _payment, _now: None)
    rerun = _Rerun(unit, made(Payment, {"id": "", "created_at": message.received_at}), Others(unit, {}))
    application = MessageProcessor(rerun, message, {message.account: rules}, _EVERY_SINK)
    if application.is_ours or message.source == Source.RETURN:
        return False
    return bool(application.reading(rules).observations)


def alarm_problem(message: OutboxMessage, cause: InboxMessage) -> str | None:
    """Yield what is wrong with what is owed about an account, by the statement that made it owed."""
    try:
        statement = statements.decode(cause.body)
    except statements.UnreadableStatement:
        statement = None
    if not isinstance(statement, statements.AccountAlarm):
        return f"message {cause.id}, which made it owed, is no alarm"
    again = json.loads(alarm_payload(cause.account, statement, message.created_at))
    kept = json.loads(message.payload)
    return None if kept == again else f"it does not say what message {cause.id} says"


def _steps(payment_id: str, messages: Sequence[InboxMessage]) -> Iterator[Step]:
    """What each message was decided to say about the payment, by the time of deciding."""
    for message in messages:
        mine: list[Step] = []
        at: object = None
        for entry in message.outcomes:
            if entry.get("payment") != payment_id:
                continue
            if entry["at"] != at:
                mine.append(Step(message, [], is_last=True))
                at = entry["at"]
            mine[-1].entries.append(entry)
        if message.outcomes and mine:
            last_at = message.outcomes[-1]["at"]
            for step in mine:
                step.is_last = step.entries[0]["at"] == last_at
        yield from mine


def _says(message: InboxMessage, problem: str) -> tuple[str, str, str]:
    return ("inbox_message", message.id, f"read again, {problem}")


def _difference(kept: Mapping[str, Any], again: Mapping[str, Any], followed: set[str]) -> str | None:
    """What a statement was decided to be, against what it is decided to be now."""
    for name, word in (("outcome", "decision"), ("state", "state"), ("transition", "transition"), ("review", "review")):
        if kept.get(name) != again.get(name):
            return f"its {word} is {again.get(name) or 'none'}, and {kept.get(name) or 'none'} is kept"
    if bool(kept.get("state_confirmed")) != bool(again.get("state_confirmed")):
        return "it confirms a state, and that is not kept" if again.get("state_confirmed") else "it confirms no state"
    if ("withheld_reason" in kept) != ("withheld_reason" in again):
        return "it withholds effects, and that is not kept" if "withheld_reason" in again else "it withholds no effects"
    owed = set(kept.get("effects") or ())
    if not owed <= followed:
        return f"it owes no {', '.join(sorted(owed - followed))}"
    missing = set(again.get("effects") or ()) - owed - set(kept.get("untaken") or ())
    if missing:
        return f"it owes {', '.join(sorted(missing))}, which it was not decided to owe"
    return None


def _may_mean(observation: Observation, payment: Payment) -> bool:
    if observation.provider_ref is not None and observation.provider_ref == payment.provider_ref:
        return True
    return observation.reference is not None and observation.reference == payment.reference


_Snapshot = tuple[dict[str, Any] | None, int, dict[tuple[str, int], OutboxMessage]]


def _snapshot(rerun: _Rerun) -> _Snapshot:
    payment = None if rerun.payment is None else dict(rerun.payment.__dict__)
    return payment, len(rerun.links), dict(rerun.effects)


def _restore(rerun: _Rerun, before: _Snapshot, *, statements: int = 0) -> None:
    """The payment is as before, but for so many statements more."""
    payment, links, effects = before
    if payment is None:
        rerun.payment = None
    elif rerun.payment is not None:
        rerun.payment.__dict__.update({**payment, "statements": payment["statements"] + statements})
    del rerun.links[links:]
    rerun.effects = dict(effects)


def _compare(found: Reread, rerun: _Rerun) -> None:
    """The payment, its transitions and effects, against what is kept of them."""
    kept, again = found.payment, rerun.payment
    if again is not None and _decided(kept.__dict__) != _decided(again.__dict__):
        for name in _DECIDED:
            if rerun.had_namesakes and name in ("disputed", "accepted"):
                continue  # they name another payment of the reference: which one it was is not known
            if getattr(kept, name) != getattr(again, name):
                words = f"by its messages its {name} is {getattr(again, name)}, and {getattr(kept, name)} is kept"
                found.problems.append(("payment", kept.id, words))
    links = {link.number: link for link in found.links}
    for link in rerun.links:
        same = links.get(link.number)
        if same is None or _moved(same.__dict__) == _moved(link.__dict__):
            continue
        for name in _MOVE:
            if getattr(same, name) != getattr(link, name):
                words = f"by its message its {name} is {getattr(link, name)}, and {getattr(same, name)} is kept"
                found.problems.append(("transition", same.id, words))
    for message in found.effects:
        owed = rerun.effects.get((message.effect, message.occurrence))
        problem = "its payment's messages do not make it owed" if owed is None else _payload_problem(message, owed)
        if problem:
            found.problems.append(("outbox_message", message.id, problem))


def _payload_problem(kept: OutboxMessage, again: OutboxMessage) -> str | None:
    if kept.cause != again.cause:
        return None  # it was owed to another sink first, and what is told then is what was true then
    said, should = json.loads(kept.payload), json.loads(again.payload)
    data, right = said["data"], should["data"]
    if (said["type"], said["timestamp"]) != (should["type"], should["timestamp"]):
        return "it is of another effect or instant than its message"
    if kept.webhook_id not in (None, webhook_id(str(data.get("effect_id")), kept.sink)):
        return "its id is not that of its effect and sink"
    for name in {*_TOLD, *(data.keys() & right.keys())} - _WORDS:
        if data.get(name) != right.get(name):
            return f"its {name} is {data.get(name)}, and by its message {right.get(name)}"
    return None
