"""Contents, origin and actions of the entries of a payment's timeline, as its page shows them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from console.contents import Contents, contents
from providers.contract import Scheme
from service import origins, timeline
from service.permissions import Permission
from service.text import shown
from service.timeline import Kind, TimelineEntry, TimelineLine, Tone
from statemachine.phases import Source
from storage.payment_history import PaymentHistory
from storage.tables import InboxMessage, RejectedDelivery, Transition


@dataclass(frozen=True, slots=True)
class MessageBytes:
    """Contents of an entry's message, and its origin."""

    contents: Contents
    headers: Sequence[tuple[str, str]]
    digest: str | None
    origin: Sequence[origins.Fact]
    download: str | None  #: where all of its bytes are
    scrubbed_at: datetime | None = None
    is_withheld: bool = False  #: bytes and headers need a permission that the person has not


@dataclass(frozen=True, slots=True)
class PageEntry:
    """One entry of the timeline as the page shows it."""

    id: str
    at: datetime
    kind: Kind
    icon: str
    title: str
    tone: Tone  #: of its icon
    lines: Sequence[TimelineLine] = ()
    moves: Sequence[Transition] = ()
    bytes: MessageBytes | None = None
    replay: str | None = None  #: where a form may ask for it to be applied once more


_ICONS_OF_SOURCES: Final = {Source.POLL: "ask", Source.LIST: "ask", Source.CREATE: "call", Source.CANCEL: "call"} | {
    Source.WEBHOOK: "in",
    Source.CALLBACK: "in",
    Source.RETURN: "payer",
    Source.MERCHANT: "wish",
    Source.POLLER: "clock",
    Source.OPERATOR: "person",
}
_ICONS: Final = {"attempt": "out", "action": "person", "rejected": "in"}

#: Statements of a person or of our poller are made anew, and not repeated.
_NOT_REPLAYED: Final = (Source.OPERATOR, Source.POLLER)


def entries(history: PaymentHistory, scheme: Scheme | None, permissions: frozenset[Permission]) -> list[PageEntry]:
    """Make the page's entries in its order, without what the permissions do not cover."""
    return [_entry(entry, scheme, permissions) for entry in timeline.entries(history)]


def _entry(entry: TimelineEntry, scheme: Scheme | None, permissions: frozenset[Permission]) -> PageEntry:
    row, source = entry.row, entry.source
    icon = _ICONS[entry.kind] if source is None else _ICONS_OF_SOURCES[source]
    made = PageEntry(entry.id, entry.at, entry.kind, icon, entry.title, entry.tone, entry.lines, entry.moves)
    if isinstance(row, InboxMessage):
        is_replayed = source not in _NOT_REPLAYED and row.scrubbed_at is None
        replay = f"/console/inbox/{row.id}/replay" if is_replayed else None
        made = replace(made, bytes=_of_message(row, scheme), replay=replay)
    elif isinstance(row, RejectedDelivery):
        client = f", from {shown(row.client)}" if Permission.PERSONAL in permissions else ""
        made = replace(made, title=f"{entry.title}{client}", bytes=_of_rejected(row, scheme))
    if made.bytes is not None:
        made = replace(made, bytes=_withheld(made.bytes, permissions))
    return made


def _of_message(message: InboxMessage, scheme: Scheme | None) -> MessageBytes:
    return MessageBytes(
        contents=contents(message),
        headers=[(shown(name), shown(value)) for name, value in message.headers],
        digest=message.digest,
        origin=origins.of_message(message, scheme),
        download=f"/console/inbox/{message.id}/body",
        scrubbed_at=message.scrubbed_at,
    )


def _of_rejected(rejected: RejectedDelivery, scheme: Scheme | None) -> MessageBytes:
    return MessageBytes(
        contents=contents(rejected),
        headers=[(shown(name), shown(value)) for name, value in rejected.headers],
        digest=None,
        origin=origins.of_rejected(rejected, scheme)[1:],
        download=None,
    )


def _withheld(found: MessageBytes, permissions: frozenset[Permission]) -> MessageBytes:
    """Leave out the bytes and headers that the permissions do not cover."""
    if Permission.BODIES not in permissions:
        found = replace(found, contents=found.contents.withheld(), download=None, is_withheld=True)
    if Permission.HEADERS not in permissions:
        found = replace(found, headers=(), origin=origins.without_headers(found.origin), is_withheld=True)
    return found
