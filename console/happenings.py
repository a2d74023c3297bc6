"""What happened to one payment, as the entries of a page: each with a sentence and its details. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from console.contents import Contents, contents
from providers.contract import Scheme
from service import origins
from service.permissions import Permission
from service.text import short, shown
from statemachine import statements
from statemachine.errors import InvalidAmount
from statemachine.money import from_minor
from statemachine.phases import Outcome, Source
from statemachine.statements import CONTENT_TYPE
from storage.payment_history import PaymentHistory
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    OperatorAction,
    OutboxMessage,
    RejectedDelivery,
    Transition,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to say of an entry: a word with a tone, and the rest."""

    word: str
    text: str
    tone: str = "quiet"


@dataclass(frozen=True, slots=True)
class Bytes:
    """What an entry's message holds and how it came."""

    contents: Contents
    headers: Sequence[tuple[str, str]]
    digest: str | None
    origin: Sequence[origins.Fact]
    download: str | None  #: where all of its bytes are
    scrubbed_at: datetime | None = None
    is_withheld: bool = False  #: bytes and headers need a permission that the person has not


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    id: str
    at: datetime
    sort: str  #: message, attempt, action or refused
    icon: str
    title: str
    tone: str  #: of its icon
    lines: Sequence[Line] = ()
    moves: Sequence[Transition] = ()
    bytes: Bytes | None = None
    replay: str | None = None  #: where a form may ask for it to be applied once more


_TONES: Final[Mapping[str, str]] = {
    Outcome.ADVANCED: "ok",
    Outcome.UNCHANGED: "quiet",
    Outcome.STALE: "quiet",
    Outcome.CONFLICT: "bad",
    Outcome.PARKED: "warn",
    Outcome.NOTED: "quiet",
}
_TITLES: Final = {
    Source.WEBHOOK: "The provider sent a webhook",
    Source.CALLBACK: "The provider called this payment's own URL",
    Source.RETURN: "The payer came back from checkout",
    Source.POLL: "We asked, and the provider answered",
    Source.LIST: "The provider's list named it",
    Source.CREATE: "The provider answered our create call",
    Source.CANCEL: "The provider answered our cancel call",
    Source.MERCHANT: "The merchant wants this payment",
    Source.POLLER: "Our poller spoke up",
    Source.OPERATOR: "A person decided",
}
_ICONS: Final = {Source.POLL: "ask", Source.LIST: "ask", Source.CREATE: "call", Source.CANCEL: "call"} | {
    Source.WEBHOOK: "in",
    Source.CALLBACK: "in",
    Source.RETURN: "payer",
    Source.MERCHANT: "wish",
    Source.POLLER: "clock",
    Source.OPERATOR: "person",
}

#: What a person or our poller once said is said anew, and not repeated.
_SAID_ONCE: Final = (Source.OPERATOR, Source.POLLER)


def entries(page: PaymentHistory, scheme: Scheme | None, permissions: frozenset[Permission]) -> list[Entry]:
    """The page's happenings in its order, without what the permissions do not cover."""
    by_cause: dict[str, list[Transition]] = {}
    for transition in page.transitions:
        by_cause.setdefault(transition.cause, []).append(transition)
    owed = {message.id: message for message in page.owed}
    caused: dict[str, list[OutboxMessage]] = {}
    for message in page.owed:
        caused.setdefault(message.cause, []).append(message)
    found: list[Entry] = []
    for happening in page.happenings:
        if isinstance(happening, InboxMessage):
            moves = by_cause.get(happening.id, [])
            entry = _message(happening, page.payment.id, moves, caused.get(happening.id, []), scheme)
            found.append(_withheld(entry, permissions))
        elif isinstance(happening, DeliveryAttempt):
            found.append(_attempt(happening, owed))
        elif isinstance(happening, OperatorAction):
            found.append(_action(happening, page.payment.id))
        else:
            shows_client = Permission.PERSONAL in permissions
            found.append(_withheld(_refused(happening, scheme, shows_client=shows_client), permissions))
    return found


def _withheld(entry: Entry, permissions: frozenset[Permission]) -> Entry:
    """The entry without the bytes and headers that the permissions do not cover."""
    held = entry.bytes
    if held is None:
        return entry
    if Permission.BODIES not in permissions:
        held = replace(held, contents=held.contents.withheld(), download=None, is_withheld=True)
    if Permission.HEADERS not in permissions:
        held = replace(held, headers=(), origin=origins.without_headers(held.origin), is_withheld=True)
    return replace(entry, bytes=held)


def _message(
    message: InboxMessage,
    payment_id: str,
    moves: Sequence[Transition],
    owed: Iterable[OutboxMessage],
    scheme: Scheme | None,
) -> Entry:
    source = Source(message.source)
    title, said = _titled(message, source)
    lines = [*said, *_decided(message, payment_id)]
    lines += (Line("owed", f"{each.effect} to {each.sink}", "busy") for each in owed)
    tones = [line.tone for line in lines]
    tone = next((tone for tone in ("bad", "warn", "ok") if tone in tones), "quiet")
    return Entry(
        id=message.id,
        at=message.received_at,
        sort="message",
        icon=_ICONS[source],
        title=title,
        tone=tone,
        lines=lines,
        moves=moves,
        bytes=Bytes(
            contents=contents(message),
            headers=[(shown(name), shown(value)) for name, value in message.headers],
            digest=message.digest,
            origin=origins.of_message(message, scheme),
            download=f"/console/inbox/{message.id}/body",
            scrubbed_at=message.scrubbed_at,
        ),
        replay=None if source in _SAID_ONCE or message.scrubbed_at else f"/console/inbox/{message.id}/replay",
    )


def _titled(message: InboxMessage, source: Source) -> tuple[str, list[Line]]:
    """The sentence, and what our own statement says; a provider's is in its bytes and in what was decided."""
    title, lines = _TITLES[source], []
    if message.http_status is not None:
        title = f"{title}: {message.http_status}"
    if ["content-type", CONTENT_TYPE] in message.headers and message.scrubbed_at is None:
        try:
            said = statements.decode(bytes(message.body))
        except statements.UnreadableStatement:
            return title, [Line("unreadable", "its bytes are no statement of ours", "bad")]
        match said:
            case statements.CreateWanted():
                amount = _money(said.amount_minor, said.currency)
                lines.append(Line("wanted", f"{amount}, reference {shown(said.reference)}", "busy"))
            case statements.CallFailed():
                title = f"Our {shown(said.call)} call failed"
                doubt = "; it may have been done all the same" if said.is_ambiguous else ""
                lines.append(Line("failed", f"{shown(said.code)}: {shown(said.message)}{doubt}", "warn"))
            case statements.Resolution():
                title = f"{shown(said.actor)} said that it is {shown(said.state)}"
                lines.append(Line("why", shown(said.reason)))
            case statements.GaveUp():
                lines.append(Line("why", shown(said.reason), "warn"))
    return title, lines


def _decided(message: InboxMessage, payment_id: str) -> Iterator[Line]:
    if message.redeliveries:
        often = f"{message.redeliveries} times more, the last time {shown(message.last_redelivered_at)}"
        yield Line("redelivered", f"the same came {often}; it counts once")
    if message.variant_of is not None:
        yield Line("variant", f"the same identity as {short(message.variant_of)}, and other content", "warn")
    said = [each for each in message.outcomes if each.get("payment", payment_id) == payment_id]
    for each in said:
        outcome = str(each.get("outcome"))
        yield Line(shown(outcome), shown(each.get("reason")), _TONES.get(outcome, "quiet"))
        if "review" in each:
            yield Line("review", f"opened: {shown(each['review'])}", "bad")
    if message.status == "pending":
        failed = f"; the last try failed: {shown(message.last_error)}" if message.last_error else ""
        yield Line("pending", f"not decided yet{failed}", "warn")
    elif not said and message.reason is not None:
        yield Line(shown(message.status), shown(message.reason), "warn")
    elif message.status == "dead":
        yield Line("dead", f"given up: {shown(message.last_error)}", "bad")


def _attempt(attempt: DeliveryAttempt, owed: Mapping[str, OutboxMessage]) -> Entry:
    message = owed[attempt.outbox_id]
    is_taken = attempt.outcome == "delivered"
    verb = "took" if is_taken else "did not take"
    answered = f"answered {attempt.http_status}" if attempt.http_status is not None else "no answer"
    lines = [
        Line(attempt.outcome, f"{answered}, {attempt.duration_ms} ms, attempt {attempt.number}", _outcome(attempt))
    ]
    if attempt.error:
        lines.append(Line("error", shown(attempt.error), "quiet"))
    title = f"{shown(message.sink)} {verb} {shown(message.effect)}"
    return Entry(attempt.id, attempt.started_at, "attempt", "out", title, _outcome(attempt), lines)


def _outcome(attempt: DeliveryAttempt) -> str:
    return {"delivered": "ok", "failed": "warn"}.get(attempt.outcome, "bad")


def _action(action: OperatorAction, payment_id: str) -> Entry:
    about = "" if action.subject == payment_id else f" of …{short(action.subject)}"
    lines = [Line("why", shown(action.reason))]
    return Entry(
        action.id, action.at, "action", "person", f"{shown(action.actor)}: {shown(action.action)}{about}", "busy", lines
    )


def _refused(rejected: RejectedDelivery, scheme: Scheme | None, *, shows_client: bool) -> Entry:
    facts = origins.of_rejected(rejected, scheme)
    line = Line("quarantined", facts[0][1], "bad")
    whence = f", from {shown(rejected.client)}" if shows_client else ""
    hint = Line("to do", "mend the key or the clock, and redeem it from the quarantine", "quiet")
    return Entry(
        id=rejected.id,
        at=rejected.received_at,
        sort="refused",
        icon="in",
        title=f"A delivery to this payment's URL was refused{whence}",
        tone="bad",
        lines=[line, hint],
        bytes=Bytes(
            contents=contents(rejected),
            headers=[(shown(name), shown(value)) for name, value in rejected.headers],
            digest=None,
            origin=facts[1:],
            download=None,
        ),
    )


def _money(minor: int, currency: str) -> str:
    try:
        return f"{from_minor(minor, currency)} {currency}"
    except InvalidAmount:
        return f"{minor} minor units"
