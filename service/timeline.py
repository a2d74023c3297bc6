"""The timeline of a payment: what came, what was decided, what was sent. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from service.origins import rejection
from service.payments import said_by
from service.text import short, shown
from statemachine import own_statements
from statemachine.lifecycle import NOT_CREATED
from statemachine.money import amount_text
from statemachine.own_statements import CONTENT_TYPE
from statemachine.phases import Outcome, Source
from storage.payment_history import HistoryRow, PaymentHistory
from storage.tables import DeliveryAttempt, InboxMessage, OperatorAction, OutboxMessage, RejectedDelivery, Transition
from storage.types import InboxStatus, OutboxStatus

Kind = Literal["action", "message", "owed", "attempt", "rejected"]
Tone = Literal["ok", "quiet", "busy", "warn", "bad"]

#: At one instant, in the order of cause and effect.
KINDS: Final[Sequence[Kind]] = ("rejected", "action", "message", "owed", "attempt")


@dataclass(frozen=True, slots=True)
class TimelineLine:
    """One thing to say of an entry: a word with a tone, and the rest."""

    word: str
    text: str
    tone: Tone = "quiet"


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One thing that happened."""

    row: HistoryRow | OutboxMessage
    at: datetime
    kind: Kind
    title: str
    tone: Tone
    lines: Sequence[TimelineLine] = ()
    moves: Sequence[Transition] = ()

    @property
    def id(self) -> str:
        """Id of the row that the entry is about."""
        return self.row.id

    @property
    def source(self) -> Source | None:
        """Source of a message; None of anything else."""
        return Source(self.row.source) if isinstance(self.row, InboxMessage) else None


_OUTCOME_TONES: Final[Mapping[str, Tone]] = {
    Outcome.ADVANCED: "ok",
    Outcome.UNCHANGED: "quiet",
    Outcome.STALE: "quiet",
    Outcome.CONFLICT: "bad",
    Outcome.PARKED: "warn",
    Outcome.NOTED: "quiet",
}
_ATTEMPT_TONES: Final[Mapping[str, Tone]] = {"delivered": "ok", "failed": "warn"}
_TITLES: Final = {
    Source.WEBHOOK: "The provider sent a webhook",
    Source.CALLBACK: "The provider called this payment's own URL",
    Source.RETURN: "The payer came back from checkout",
    Source.POLL: "We asked, and the provider answered",
    Source.LIST: "The provider's list named it",
    Source.JOURNAL: "The provider's log of events told of it",
    Source.CREATE: "The provider answered our create call",
    Source.CANCEL: "The provider answered our cancel call",
    Source.CAPTURE: "The provider answered our capture call",
    Source.REFUND: "The provider answered our refund call",
    Source.MERCHANT: "The merchant wants this payment",
    Source.POLLER: "Our poller spoke up",
    Source.OPERATOR: "A person decided",
}


def entries(history: PaymentHistory) -> list[TimelineEntry]:
    """Word the rows of the history, in their order."""
    moves: dict[str, list[Transition]] = {}
    for transition in history.transitions:
        moves.setdefault(transition.cause, []).append(transition)
    owed = {message.id: message for message in history.owed}
    caused: dict[str, list[OutboxMessage]] = {}
    for message in history.owed:
        caused.setdefault(message.cause, []).append(message)
    found: list[TimelineEntry] = []
    for row in history.rows:
        if isinstance(row, InboxMessage):
            found.append(_message(row, history.payment.id, moves.get(row.id, []), caused.get(row.id, [])))
        elif isinstance(row, DeliveryAttempt):
            found.append(_attempt(row, owed))
        elif isinstance(row, OperatorAction):
            found.append(_action(row, history.payment.id))
        else:
            found.append(_rejected(row))
    return found


def chronicle(history: PaymentHistory) -> list[TimelineEntry]:
    """Word the rows of a whole history and its dead effects, the oldest first."""
    found = [*entries(history), *_dead(history.owed)]
    return sorted(found, key=lambda entry: (entry.at, KINDS.index(entry.kind), entry.title))


def details(entry: TimelineEntry) -> Iterator[str]:
    """Yield what there is to say of an entry as lines of text."""
    row = entry.row
    if isinstance(row, InboxMessage):
        yield from _received(row)
    for line in entry.lines:
        yield f"{line.word}: {line.text}"
    for transition in entry.moves:
        yield _moved(transition)


def body_size(message: InboxMessage) -> str:
    """Say how many bytes there are, or that retention has scrubbed them."""
    if message.scrubbed_at is not None:
        return f"bytes scrubbed {shown(message.scrubbed_at)}"
    return f"{len(message.body)} bytes"


def _message(
    message: InboxMessage, payment_id: str, moves: Sequence[Transition], owed: Iterable[OutboxMessage]
) -> TimelineEntry:
    title, said = _titled(message, Source(message.source))
    lines = [*said, *_decided(message, payment_id)]
    lines += (TimelineLine("owed", f"{each.effect} to {each.sink} ({short(each.id)})", "busy") for each in owed)
    tones = [line.tone for line in lines]
    tones_by_weight: Sequence[Tone] = ("bad", "warn", "ok")
    tone: Tone = next((tone for tone in tones_by_weight if tone in tones), "quiet")
    return TimelineEntry(message, message.received_at, "message", title, tone, lines, moves)


def _titled(message: InboxMessage, source: Source) -> tuple[str, list[TimelineLine]]:
    """Return the title, and what our own statement says; not a provider's."""
    title, lines = _TITLES[source], []
    if message.http_status is not None:
        title = f"{title}: {message.http_status}"
    if ["content-type", CONTENT_TYPE] in message.headers and message.scrubbed_at is None:
        try:
            said = own_statements.decode(bytes(message.body))
        except own_statements.UnreadableStatement:
            return title, [TimelineLine("unreadable", "its bytes are no statement of ours", "bad")]
        match said:
            case own_statements.CreateWanted():
                amount = amount_text(said.amount_minor, said.currency)
                lines.append(TimelineLine("wanted", f"{amount}, reference {shown(said.reference)}", "busy"))
                lines += _own_words(said)
            case own_statements.PaymentDescribed():
                lines += _own_words(said)
            case own_statements.MoneyWanted():
                title = f"The merchant wants a {shown(said.call)}"
                lines.append(TimelineLine("wanted", amount_text(said.amount_minor, said.currency), "busy"))
            case own_statements.CallFailed():
                title = f"Our {shown(said.call)} call failed"
                doubt = "; it may have been done all the same" if said.is_ambiguous else ""
                lines.append(TimelineLine("failed", f"{shown(said.code)}: {shown(said.message)}{doubt}", "warn"))
            case own_statements.Resolution():
                title = f"{shown(said.actor)} said that it is {shown(said.state)}"
                lines.append(TimelineLine("why", shown(said.reason)))
            case own_statements.GaveUp():
                lines.append(TimelineLine("why", shown(said.reason), "warn"))
    return title, lines


def _own_words(said: own_statements.CreateWanted | own_statements.PaymentDescribed) -> Iterator[TimelineLine]:
    if said.description:
        yield TimelineLine("description", shown(said.description))
    if said.metadata:
        yield TimelineLine(
            "metadata", ", ".join(f"{shown(key)}={shown(value)}" for key, value in said.metadata.items())
        )


def _received(message: InboxMessage) -> Iterator[str]:
    parts = [f"{message.source} {short(message.id)}", body_size(message), f"sha256 {message.digest[:12]}"]
    if message.key_id is not None:
        parts.append(f"verified with key {shown(message.key_id)}")
    yield "came: " + ", ".join(parts)
    if message.provider_time is not None:
        yield f"provider's time: {shown(message.provider_time)}"


def _decided(message: InboxMessage, payment_id: str) -> Iterator[TimelineLine]:
    if message.redeliveries:
        often = f"{message.redeliveries} times more, the last time {shown(message.last_redelivered_at)}"
        yield TimelineLine("redelivered", f"the same came {often}; it counts once")
    if message.variant_of is not None:
        yield TimelineLine("variant", f"the same identity as {short(message.variant_of)}, and other content", "warn")
    said = [each for each in message.outcomes if each.get("payment", payment_id) == payment_id]
    for each in said:
        outcome = str(each.get("outcome"))
        yield TimelineLine(shown(outcome), shown(each.get("reason")), _OUTCOME_TONES.get(outcome, "quiet"))
        if "attempt" in each:
            yield TimelineLine("attempt", f"said of attempt {shown(each['attempt'])}, which did not lead then")
        if "review" in each:
            yield TimelineLine("review", f"opened: {shown(each['review'])}", "bad")
    if message.status == InboxStatus.PENDING:
        failed = f"; the last try failed: {shown(message.last_error)}" if message.last_error else ""
        yield TimelineLine("pending", f"not decided yet{failed}", "warn")
    elif not said and message.reason is not None:
        yield TimelineLine(shown(message.status), shown(message.reason), "warn")
    elif message.status == InboxStatus.DEAD:
        yield TimelineLine("dead", f"given up: {shown(message.last_error)}", "bad")


def _moved(transition: Transition) -> str:
    words = [f"transition {transition.number}: {shown(transition.from_state) or 'new'} -> {shown(transition.to_state)}"]
    if transition.from_state == transition.to_state:
        words = [f"transition {transition.number}: the sums of {shown(transition.to_state)} have changed"]
    if transition.via:
        words.append(f"via {', '.join(map(shown, transition.via))}")
    if transition.forced:
        words.append("FORCED")
    if transition.forced or transition.actor is not None or transition.to_state == NOT_CREATED:
        words.append(f"said by {shown(said_by(transition))}")
    return ", ".join([*words, f"phase {transition.phase}"])


def _dead(owed: Iterable[OutboxMessage]) -> Iterator[TimelineEntry]:
    for message in owed:
        if message.status == OutboxStatus.DEAD:
            title = f"{message.effect} to {message.sink} is dead"
            lines = [TimelineLine("error", f"{shown(message.last_error)} ({short(message.id)})", "bad")]
            yield TimelineEntry(message, message.next_attempt_at, "owed", title, "bad", lines)


def _attempt(attempt: DeliveryAttempt, owed: Mapping[str, OutboxMessage]) -> TimelineEntry:
    message = owed[attempt.outbox_id]
    tone = _ATTEMPT_TONES.get(attempt.outcome, "bad")
    verb = "took" if attempt.outcome == "delivered" else "did not take"
    words = [f"{attempt.duration_ms} ms", f"attempt {attempt.number}"]
    if attempt.http_status is not None:
        words.insert(0, f"answered {attempt.http_status}")
    elif attempt.outcome != "delivered":
        words.insert(0, "no answer")
    lines = [TimelineLine(attempt.outcome, ", ".join(words), tone)]
    if attempt.error:
        lines.append(TimelineLine("error", shown(attempt.error)))
    if attempt.answer:
        lines.append(TimelineLine("it said", _beginning(shown(attempt.answer))))
    title = f"{shown(message.sink)} {verb} {shown(message.effect)}"
    return TimelineEntry(attempt, attempt.started_at, "attempt", title, tone, lines)


#: Characters of an answer in a line of the timeline; the effect's page has all that is kept.
_MAX_ANSWER_CHARS: Final = 160


def _beginning(text: str) -> str:
    return text if len(text) <= _MAX_ANSWER_CHARS else f"{text[: _MAX_ANSWER_CHARS - 1]}…"


def _action(action: OperatorAction, payment_id: str) -> TimelineEntry:
    about = "" if action.subject == payment_id else f" of …{short(action.subject)}"
    title = f"{shown(action.actor)}: {shown(action.action)}{about}"
    return TimelineEntry(action, action.at, "action", title, "busy", [TimelineLine("why", shown(action.reason))])


def _rejected(rejected: RejectedDelivery) -> TimelineEntry:
    lines = [
        TimelineLine("quarantined", rejection(rejected.reason), "bad"),
        TimelineLine("to do", "mend the key or the clock, and redeem it from the quarantine"),
    ]
    title = "A delivery to this payment's URL was refused"
    return TimelineEntry(rejected, rejected.received_at, "rejected", title, "bad", lines)
