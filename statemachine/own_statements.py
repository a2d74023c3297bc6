"""Statements of our own: of merchants, calls, operators, poller and alarms.

They travel through the inbox like a provider's (rule R1), as canonical JSON, so that the same statement has the same
bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from statemachine.errors import ServiceError

#: The content type that marks an inbox message as a statement of our own.
CONTENT_TYPE: Final = "application/vnd.receipted+json"


class UnreadableStatement(ServiceError):
    """Bytes that claim to be a statement of our own and are not."""

    code = "unreadable_statement"


@dataclass(frozen=True, slots=True)
class CreateWanted:
    """The merchant wants a payment to exist; recorded before the provider is called."""

    kind: str
    reference: str
    amount_minor: int
    currency: str
    return_url: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PaymentDescribed:
    """The merchant's own words about a payment that is here already."""

    description: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MoneyWanted:
    """The merchant wants money captured or refunded; recorded before the call is sent."""

    call: str  #: "capture" or "refund"
    amount_minor: int
    currency: str
    is_whole: bool  #: no amount was given: it is what remained


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call of ours was refused, or had no answer (`is_ambiguous`)."""

    call: str  #: "create", "cancel", "capture" or "refund"
    code: str
    message: str
    http_status: int | None
    is_ambiguous: bool
    wish: str | None = None  #: of a capture or refund: the message of the wish that the call was made for


@dataclass(frozen=True, slots=True)
class Resolution:
    """A named person says which state is true, and why."""

    state: str
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Our poller stops asking, or finds a create call without an answer.

    It decides nothing about the money.
    """

    review: str  #: statemachine.phases.Review
    reason: str


@dataclass(frozen=True, slots=True)
class AccountAlarm:
    """An alarm of a whole account begins, or is over.

    It is about no payment, and decides nothing about money.
    """

    alarm: str  #: statemachine.phases.Alarm
    since: str  #: ISO 8601, when it began; with the alarm's name the identity of this one
    is_over: bool
    reason: str  #: in words, and what to do
    details: Mapping[str, float | int | str | None] = field(default_factory=dict)  #: figures, never a payload


Statement = CreateWanted | PaymentDescribed | MoneyWanted | CallFailed | Resolution | GaveUp | AccountAlarm
_BY_NAME: Final[dict[str, type[Statement]]] = {
    kind.__name__: kind
    for kind in (CreateWanted, PaymentDescribed, MoneyWanted, CallFailed, Resolution, GaveUp, AccountAlarm)
}


#: The header of a recorded answer that names the wish which the call was made for.
WISH_HEADER: Final = "receipted-wish"


def wish_of(headers: Iterable[Sequence[str]]) -> str | None:
    """Return the wish that a recorded answer to our own call names; None for none."""
    return next((value for name, value in headers if name == WISH_HEADER), None)


def point_of(call: str, wish: str) -> str:
    """Return the point of a review that is about this wish's outcome."""
    return f"{call}:{wish}"


def encode(statement: Statement) -> bytes:
    """Encode a statement canonically: equal statements have equal bytes."""
    content = {"statement": type(statement).__name__, **asdict(statement)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(body: bytes) -> Statement:
    """Decode a statement; raises UnreadableStatement for any other bytes."""
    try:
        content = json.loads(body)
        return _BY_NAME[content.pop("statement")](**content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise UnreadableStatement from fault
