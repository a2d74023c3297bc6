"""Spans of messages, calls and deliveries, with ids derived from message ids."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Concatenate, Final, Literal, ParamSpec

import structlog

from fulfilment.broker_sink import DRIVERS
from statemachine.errors import ServiceError
from statemachine.phases import Source
from storage.hashing import microseconds
from storage.ids import new_id
from storage.intake import Arrival, Outcome
from storage.outbox import Settlement
from storage.tables import InboxMessage, OutboxMessage
from storage.types import InboxStatus, OutboxStatus

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


Kind = Literal["server", "client", "producer", "internal"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that was done, and where in which trace."""

    name: str
    kind: Kind
    trace_id: int
    span_id: int
    parent_id: int | None  #: None: the trace begins with it
    began_at: datetime
    ended_at: datetime
    attributes: Mapping[str, str | int | float]
    error: str | None = None  #: a code of ours, where it failed
    link: Remote | None = None  #: what caused it in somebody else's trace


#: Tells of a span; never waits, and raises nothing.
Emit = Callable[[Span], None]


log = structlog.get_logger()

Attributes = dict[str, str | int | float]
Parameters = ParamSpec("Parameters")

_POSTED: Final = {Source.WEBHOOK.value: "/webhooks/{account}", Source.CALLBACK.value: "/callbacks/{token}"}
_CALLS: Final = {Source.POLL.value: "ask", Source.CREATE.value: "create", Source.CANCEL.value: "cancel"}
_CAME_IN: Final = frozenset({*_POSTED, Source.RETURN.value})


def _harmless(
    told: "Callable[Concatenate[Traces, Parameters], None]",
) -> "Callable[Concatenate[Traces, Parameters], None]":
    """A trace is worth less than what it is about: a bug met in telling one is logged, and that is all."""

    def guarded(traces: "Traces", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            told(traces, *args, **kwargs)
        except Exception as fault:  # noqa: BLE001 - see above
            traces.note_fault(fault)

    return guarded


class Traces:
    """Tells of what was done, for the share of inbox messages that is sampled. Any thread may call it."""

    def __init__(
        self,
        emit: Emit,
        sinks: Mapping[str, str],
        clock: Callable[[], datetime],
        *,
        share: float,
        trusts_incoming: bool,
    ) -> None:
        """`sinks` are the kinds of the sinks, by name; a share of 0 is none."""
        self._emit = emit
        self._sinks = dict(sinks)
        self._clock = clock
        self._bound = bound(share)
        self._trusts_incoming = trusts_incoming
        self._faults: set[str] = set()  #: kinds that were logged

    def note_fault(self, fault: Exception) -> None:
        """A bug is logged once of its kind: it may be met thousands of times a second."""
        kind = type(fault).__name__
        if kind not in self._faults:
            self._faults.add(kind)
            log.error("trace.failed", exc_info=fault)

    def has(self, message_id: str) -> bool:
        """Whether the message's trace is sampled."""
        return is_within(message_id, self._bound)

    @_harmless
    def received(
        self, batch: Sequence[tuple[Arrival, object, float]], outcomes: Sequence[Outcome], began: float, ended: float
    ) -> None:
        """A batch has ended; `began` and `ended` are the times of its commit, by the clock by which each came."""
        limit, size = self._bound, len(batch)
        if not limit:
            return
        for (arrival, _, came), outcome in zip(batch, outcomes, strict=True):
            message_id = arrival.id if isinstance(outcome, ServiceError) else outcome.id
            if is_within(message_id, limit):
                self._receive(arrival, message_id, outcome, size, (came, began, ended))

    def _receive(
        self, arrival: Arrival, message_id: str, outcome: Outcome, size: int, times: tuple[float, float, float]
    ) -> None:
        came, began, ended = times
        error = outcome if isinstance(outcome, ServiceError) else None
        said: Attributes = {
            "receipted.account": arrival.account,
            "receipted.source": arrival.source,
            "receipted.message.id": message_id,
            "receipted.outcome": _word(outcome),
            "receipted.batch.size": size,
            "receipted.queue.seconds": began - came,
            "receipted.commit.seconds": ended - began,
        }
        if arrival.source in _POSTED:
            said["http.request.method"] = "POST"
            said["http.route"] = _POSTED[arrival.source]
            said["http.response.status_code"] = error.status if error is not None else 200
        self._emit(
            Span(
                "receive",
                "server",
                trace(message_id),
                root(arrival.id),
                None if arrival.id == message_id else root(message_id),  # the provider delivered it again
                arrival.received_at,
                arrival.received_at + timedelta(seconds=ended - came),
                said,
                error.code if error is not None else None,
                told(json.loads(arrival.headers)) if self._trusts_incoming else None,
            )
        )

    @_harmless
    def decided(self, messages: Sequence[InboxMessage]) -> None:
        """The messages were applied, in one commit that has just ended; those that were put off are left out."""
        limit = self._bound
        for message in messages if limit else ():
            if is_within(message.id, limit) and message.decided_at is not None and message.decision is not None:
                self._decide(message, message.decided_at, len(messages))

    def _decide(self, message: InboxMessage, at: datetime, size: int) -> None:
        is_dead = message.status == InboxStatus.DEAD.value
        said: Attributes = {
            "receipted.account": message.account,
            "receipted.source": message.source,
            "receipted.message.id": message.id,
            "receipted.outcome": "dead" if is_dead else message.decision or "",
            "receipted.batch.size": size,
        }
        if message.payment_id is not None:
            said["receipted.payment.id"] = message.payment_id
        numbers = [entry["transition"] for entry in message.outcomes if "transition" in entry]
        if numbers:
            said["receipted.transition.number"] = numbers[-1]
        has_root = message.source in _CAME_IN or (message.source in _CALLS and message.http_status is not None)
        self._emit(
            Span(
                "decide",
                "internal",
                trace(message.id),
                decided(message.id, at),
                root(message.id) if has_root else None,
                at,
                max(at, self._clock()),
                said,
                "dead" if is_dead else None,
            )
        )

    @_harmless
    def answered(self, message: InboxMessage) -> None:
        """A provider has answered a call of ours, and the answer is kept as this message."""
        name = _CALLS.get(message.source)
        if name is not None and message.http_status is not None and self.has(message.id):
            began_at = message.provider_time or message.received_at
            said: Attributes = {"receipted.message.id": message.id, "http.response.status_code": message.http_status}
            self._call(name, message.account, message.about, message.id, (began_at, message.received_at), said)

    @_harmless
    def unanswered(
        self, source: Source, account: str, payment_id: str, error: ServiceError, began_at: datetime
    ) -> None:
        """A call of ours has failed: a trace of its own, as no message keeps an answer."""
        an_id = new_id()
        if self.has(an_id):
            status = getattr(error, "http_status", None)
            said: Attributes = {} if status is None else {"http.response.status_code": status}
            times = (began_at, max(began_at, self._clock()))
            self._call(_CALLS[source.value], account, payment_id, an_id, times, said, error.code)

    def _call(
        self,
        name: str,
        account: str,
        payment_id: str | None,
        an_id: str,
        times: tuple[datetime, datetime],
        said: Attributes,
        error: str | None = None,
    ) -> None:
        said["receipted.account"] = account
        if payment_id is not None:
            said["receipted.payment.id"] = payment_id
        self._emit(Span(name, "client", trace(an_id), root(an_id), None, *times, said, error))

    def traceparent(self, message: OutboxMessage) -> str | None:
        """What the next attempt to deliver the effect carries; None where its trace is not sampled."""
        if not self.has(message.cause):
            return None
        return traceparent(trace(message.cause), delivered(message.id, message.attempts + 1))

    @_harmless
    def delivered(self, settled: Settlement) -> None:
        """An attempt to deliver an effect is over, and that is recorded."""
        message, attempt = settled.message, settled.attempt
        if not self.has(message.cause):
            return
        number, system = message.attempts + 1, self._sinks.get(message.sink, "")
        is_delivered = settled.status is OutboxStatus.DELIVERED
        outcome = "delivered" if is_delivered else "dead" if settled.status is OutboxStatus.DEAD else "failed"
        said: Attributes = {
            "receipted.account": message.account,
            "receipted.sink": message.sink,
            "receipted.effect": message.effect,
            "receipted.effect.id": message.id,
            "receipted.attempt": number,
            "receipted.outcome": outcome,
        }
        if message.payment_id is not None:
            said["receipted.payment.id"] = message.payment_id
        kind: Kind = "internal"
        if system == "http":
            kind = "client"
            said["http.request.method"] = "POST"
            if number > 1:
                said["http.request.resend_count"] = number - 1
            if attempt.http_status is not None:
                said["http.response.status_code"] = attempt.http_status
        elif system in DRIVERS:
            kind = "producer"
            said |= {
                "messaging.system": system,
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.message.id": f"msg_{message.id}",
            }
        self._emit(
            Span(
                "deliver",
                kind,
                trace(message.cause),
                delivered(message.id, number),
                decided(message.cause, message.created_at),
                attempt.started_at,
                attempt.started_at + timedelta(milliseconds=attempt.duration_ms),
                said,
                None if is_delivered else outcome,
            )
        )


def _word(outcome: Outcome) -> str:
    if isinstance(outcome, ServiceError):
        return "unavailable" if outcome.status == 503 else "failed"
    return "duplicate" if outcome.is_duplicate else "variant" if outcome.is_variant else "recorded"
