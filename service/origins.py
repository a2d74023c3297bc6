"""Origin of a statement in words: scheme, header, signed time, key, rejection."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from providers.contract import Scheme
from service.text import shown
from statemachine.own_statements import CONTENT_TYPE
from statemachine.phases import ANSWERS, Source
from storage.tables import InboxMessage, RejectedDelivery

#: Why a delivery was not believed, and what that usually means.
REJECTIONS: Final = {
    "signature_missing": "it carried no signature: somebody else found the URL, or a proxy took the header away",
    "signature_malformed": "its signature has no form that the scheme knows",
    "signature_wrong": "its signature is of no key here: it is forged, or the key here is not the provider's",
    "timestamp_missing": "it carried no signed time",
    "timestamp_malformed": "its signed time cannot be read",
    "timestamp_stale": "it was signed too long ago: it is an old one sent again, or a clock is wrong",
    "timestamp_future": "it was signed in the future: a clock is wrong",
    "content_encoded": "its signature does not fit its body, which came compressed: a proxy on the way may do that",
    "no_active_key": "no key of the account was valid at that instant",
}

#: Of a header's value: enough to compare by eye.
_MAX_HEADER_CHARS: Final = 90

Fact = tuple[str, str]

_SIGNATURE: Final = "signature"
_SIGNED_TIME: Final = "signed time"

#: Facts that hold a header's value.
_QUOTING: Final = frozenset({_SIGNATURE, _SIGNED_TIME})


def of_message(message: InboxMessage, scheme: Scheme | None) -> list[Fact]:
    """List name and value of everything that says who made the statement."""
    source = Source(message.source) if message.source in list(Source) else None
    if source in (Source.WEBHOOK, Source.CALLBACK):
        return [*_signed(message, scheme), *_matched(message)]
    if ["content-type", CONTENT_TYPE] in message.headers:
        return [("origin", "a statement of our own, recorded before anything was done")]
    if source is Source.RETURN:
        return [("origin", "the payer's browser, by a link that we signed; it says nothing but that they came back")]
    if source is Source.JOURNAL:
        return [("origin", "an event of the provider's own log, which we read by our own authenticated call")]
    if source in ANSWERS:
        return list(_answered(message))
    return [("origin", f"recorded by {shown(message.source)}")]


def without_headers(facts: Sequence[Fact]) -> list[Fact]:
    """Leave out the facts that quote a header."""
    return [fact for fact in facts if fact[0] not in _QUOTING]


def rejection(reason: str) -> str:
    """Say why a delivery was not believed."""
    why = REJECTIONS.get(reason, "it could not be verified")
    return f"{shown(reason).replace('_', ' ')}: {why}"


def of_rejected(rejected: RejectedDelivery, scheme: Scheme | None) -> list[Fact]:
    """List why a delivery was not believed, and everything that was looked at."""
    return [("not believed", rejection(rejected.reason)), *_signed(rejected, scheme)]


def _signed(message: InboxMessage | RejectedDelivery, scheme: Scheme | None) -> Iterator[Fact]:
    if scheme is None:
        return
    yield "scheme", scheme.words
    yield _SIGNATURE, _header(message.headers, scheme.header)
    if scheme.time_header not in (None, scheme.header):
        yield _SIGNED_TIME, _header(message.headers, scheme.time_header)


def _matched(message: InboxMessage) -> Iterator[Fact]:
    at = message.provider_time
    if at is not None:
        yield "skew", f"signed {shown(at)}, received {_apart(message.received_at - at)}"
    else:
        yield "skew", "nothing is dated, so its age is not known"
    if message.key_id is not None:
        yield "key", f"{shown(message.key_id)} matched, when it was received"


def _answered(message: InboxMessage) -> Iterator[Fact]:
    yield "origin", "the provider's answer to our own call, over a connection that we opened"
    if message.http_status is not None:
        yield "status", str(message.http_status)
    if message.ref is not None:
        yield "asked about", f"{shown(message.kind)} {shown(message.ref)}"
    if message.provider_time is not None:
        took = message.received_at - message.provider_time
        yield "asked at", f"{shown(message.provider_time)}, answered {_apart(took)}"


def _header(headers: Sequence[Sequence[str]], name: str | None) -> str:
    values = [value for given, value in headers if given == name]
    if not values:
        return f"{name}: not there"
    text = shown(values[0])
    cut = "…" if len(text) > _MAX_HEADER_CHARS else ""
    more = f" (and {len(values) - 1} more of that name)" if len(values) > 1 else ""
    return f"{name}: {text[:_MAX_HEADER_CHARS]}{cut}{more}"


def _apart(length: timedelta) -> str:
    """Format how long after, or before; to the millisecond where it is short."""
    seconds = abs(length.total_seconds())
    words = f"{seconds:.3f} s" if seconds < 10 else f"{seconds:,.0f} s"
    return f"{words} {'later' if length >= timedelta(0) else 'before that, by our clock'}"
