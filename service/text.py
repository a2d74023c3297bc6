"""What happened to one payment in words, in order: what came, from where, what was decided and why, what was sent."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import ANSWERS, Source
from storage.story import Story
from storage.tables import InboxMessage, Transition

#: At one instant, in the order of cause and effect.
_ACTION, _MESSAGE, _OWED, _ATTEMPT = range(4)

#: By an entry's rank: what it is about.
OF: Final = ("action", "message", "owed", "attempt")


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One thing that happened, with what else there is to say about it."""

    at: datetime
    rank: int
    text: str
    details: tuple[str, ...] = field(default=(), compare=False)


def entries(story: Story) -> list[Entry]:
    """The story in order of time."""
    return sorted([*_actions(story), *_messages(story), *_owed(story), *_attempts(story)])


def shown(value: Any, *, keep: str = "") -> str:
    """A value as a person reads it; control characters are replaced, since a provider's text may hold any."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        value = value.value
    return "".join(c if c in keep or unicodedata.category(c)[0] != "C" else "�" for c in str(value))


def short(record_id: str | None) -> str | None:
    """The end of an id, which tells rows apart; every command takes it for the whole id."""
    return None if record_id is None else record_id[-12:]


#: How the provider said it.
_BY_PROVIDER: Final = {
    Source.WEBHOOK: "the provider, by webhook",
    Source.CALLBACK: "the provider, by this payment's callback",
    Source.POLL: "the provider, in answer to our question",
    Source.LIST: "the provider, in its list",
    Source.CREATE: "the provider, in answer to our create call",
    Source.CANCEL: "the provider, in answer to our cancel call",
}


def said_by(transition: Transition) -> str:
    """Name who said that the payment is in the state: the provider and how, a person, a policy, or this service.

    A state keeps the provider's name for it whoever says it, so that only this tells them apart.
    """
    source = Source(transition.source) if transition.source in list(Source) else None
    if source is Source.OPERATOR:
        return f"{transition.actor}, an operator"
    if transition.to_state == NOT_CREATED:
        return "this service, since the create call was refused"
    if transition.forced and source in ANSWERS:
        return "our account's policy, which trusts what the provider answered"
    if source in _BY_PROVIDER:
        return _BY_PROVIDER[source]
    return f"this service ({transition.source})"


def size(message: InboxMessage) -> str:
    """How many bytes there are, or that they are gone by a rule of retention: their digest is kept."""
    if message.scrubbed_at is not None:
        return f"bytes scrubbed {shown(message.scrubbed_at)}"
    return f"{len(message.body)} bytes"


def _actions(story: Story) -> Iterator[Entry]:
    for action in story.actions:
        about = "" if action.subject == story.payment.id else f" of {short(action.subject)}"
        yield Entry(action.at, _ACTION, f"{action.actor}: {action.action}{about}", (f"reason: {action.reason}",))


def _messages(story: Story) -> Iterator[Entry]:
    moves: dict[str, list[Transition]] = {}
    for transition in story.transitions:
        moves.setdefault(transition.cause, []).append(transition)
    for message in story.messages:
        details = [*_received(message), *_decided(message, story.payment.id)]
        details += (_moved(transition) for transition in moves.get(message.id, []))
        details += (
            f"owed: {owed.effect} to {owed.sink} ({short(owed.id)})" for owed in story.owed if owed.cause == message.id
        )
        yield Entry(message.received_at, _MESSAGE, f"{message.source} {short(message.id)}", tuple(details))


def _received(message: InboxMessage) -> Iterator[str]:
    parts = [f"{size(message)}, sha256 {message.digest[:12]}"]
    if message.key_id is not None:
        parts.append(f"verified with key {message.key_id}")
    if message.http_status is not None:
        parts.append(f"answered {message.http_status}")
    if message.redeliveries:
        parts.append(f"redelivered {message.redeliveries}x, last {shown(message.last_redelivered_at)}")
    if message.variant_of is not None:
        parts.append(f"another content of {short(message.variant_of)}")
    yield "came: " + ", ".join(parts)
    if message.provider_time is not None:
        yield f"provider's time: {shown(message.provider_time)}"


def _decided(message: InboxMessage, payment_id: str) -> Iterator[str]:
    said = [entry for entry in message.outcomes if entry.get("payment", payment_id) == payment_id]
    for entry in said:
        yield f"decided: {entry.get('outcome')}: {entry.get('reason')}"
        if "review" in entry:
            yield f"review opened: {entry['review']}"
    if message.status == "pending":
        waits = f"; last error: {message.last_error}" if message.last_error else ""
        yield f"pending: not decided yet{waits}"
    elif not said and message.reason is not None:
        yield f"{message.status}: {message.reason}"


def _moved(transition: Transition) -> str:
    words = [f"transition {transition.number}: {transition.from_state or 'new'} -> {transition.to_state}"]
    if transition.via:
        words.append(f"via {', '.join(transition.via)}")
    if transition.forced:
        words.append("FORCED")
    if transition.forced or transition.actor is not None or transition.to_state == NOT_CREATED:
        words.append(f"said by {said_by(transition)}")
    return ", ".join([*words, f"phase {transition.phase}"])


def _owed(story: Story) -> Iterator[Entry]:
    for message in story.owed:
        if message.status == "dead":
            text = f"{message.effect} to {message.sink} is dead ({short(message.id)})"
            yield Entry(message.next_attempt_at, _OWED, text, (f"last error: {message.last_error}",))


def _attempts(story: Story) -> Iterator[Entry]:
    owed = {message.id: message for message in story.owed}
    for attempt in story.attempts:
        message = owed[attempt.outbox_id]
        text = f"sent {message.effect} to {message.sink}: {attempt.outcome}, attempt {attempt.number}"
        answered = f"answered {attempt.http_status}, " if attempt.http_status is not None else ""
        details = [f"{answered}{attempt.duration_ms} ms ({short(message.id)})"]
        if attempt.error:
            details.append(f"error: {attempt.error}")
        yield Entry(attempt.started_at, _ATTEMPT, text, tuple(details))
