"""What every process knows of a trace from the id of its inbox message alone, so that no row carries it.

A UUIDv7 has 128 bits, as a trace's id has, and ends in random ones, which say whether it is sampled (ADR 0029).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final

from storage.hashing import microseconds

#: Source: W3C Trace Context, "traceparent Header"; later versions may add to it.
_PARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_DIGITS: Final = 8
_ALL: Final = "g"  #: greater than any digit

Remote = tuple[int, int, int]  #: trace, span and flags


def bound(share: float) -> str:
    """What the end of an id is compared with: see `is_within`."""
    if share >= 1:
        return _ALL
    ends = round(share * 16**_DIGITS)  #: how many of them are sampled
    return f"{ends - 1:0{_DIGITS}x}" if ends else ""


def is_within(message_id: str, limit: str) -> bool:
    """Whether the message is of the share whose bound is given. The same in every process, and cheap."""
    return message_id[-_DIGITS:] <= limit


def trace(message_id: str) -> int:
    """The id of the message's trace."""
    return int(message_id.replace("-", ""), 16)


def root(message_id: str) -> int:
    """The id of the span that the message came in by."""
    return _span(message_id, "root")


def decided(message_id: str, at: datetime) -> int:
    """The id of the span of its decision at that instant; a replay has another."""
    return _span(message_id, "decide", str(microseconds(at)))


def delivered(outbox_id: str, attempt: int) -> int:
    """The id of the span of one attempt to deliver an effect."""
    return _span(outbox_id, "deliver", str(attempt))


def traceparent(trace_id: int, span_id: int) -> str:
    """The header of that name, for what is sampled."""
    return f"00-{trace_id:032x}-{span_id:016x}-01"


def told(headers: Sequence[Sequence[str]]) -> Remote | None:
    """Where somebody else's trace comes from, by the one valid `traceparent` among the headers of a request."""
    values = [value for name, value in headers if name.lower() == "traceparent"]
    found = _PARENT.fullmatch(values[0].strip()) if len(values) == 1 else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return (trace_id, span_id, int(found[4], 16) & 1) if trace_id and span_id else None


def _span(*words: str) -> int:
    return int.from_bytes(blake2b("\0".join(words).encode(), digest_size=8).digest()) or 1
