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
_SAMPLING_DIGITS: Final = 8
_ALL_DIGITS: Final = "g"  #: greater than any digit

Remote = tuple[int, int, int]  #: trace, span and flags


def sampling_limit(share: float) -> str:
    """Return the limit that the end of an id is compared with: see `is_sampled`."""
    if share >= 1:
        return _ALL_DIGITS
    ends = round(share * 16**_SAMPLING_DIGITS)  #: how many of them are sampled
    return f"{ends - 1:0{_SAMPLING_DIGITS}x}" if ends else ""


def is_sampled(message_id: str, limit: str) -> bool:
    """Return whether the message is sampled; the same in every process, and cheap."""
    return message_id[-_SAMPLING_DIGITS:] <= limit


def trace_id_of(message_id: str) -> int:
    """Return the id of the message's trace."""
    return int(message_id.replace("-", ""), 16)


def root_span_id(message_id: str) -> int:
    """Return the id of the span of the message's arrival."""
    return _span_id(message_id, "root")


def decision_span_id(message_id: str, at: datetime) -> int:
    """Return the id of the span of a decision at that instant; a replay has another."""
    return _span_id(message_id, "decide", str(microseconds(at)))


def delivery_span_id(outbox_id: str, attempt: int) -> int:
    """Return the id of the span of one attempt to deliver an effect."""
    return _span_id(outbox_id, "deliver", str(attempt))


def format_traceparent(trace_id: int, span_id: int) -> str:
    """Format the `traceparent` header of a sampled span."""
    return f"00-{trace_id:032x}-{span_id:016x}-01"


def parse_traceparent(headers: Sequence[Sequence[str]]) -> Remote | None:
    """Parse the one valid `traceparent` among the headers of a request."""
    values = [value for name, value in headers if name.lower() == "traceparent"]
    found = _PARENT.fullmatch(values[0].strip()) if len(values) == 1 else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return (trace_id, span_id, int(found[4], 16) & 1) if trace_id and span_id else None


def _span_id(*words: str) -> int:
    return int.from_bytes(blake2b("\0".join(words).encode(), digest_size=8).digest()) or 1


Kind = Literal["server", "client", "producer", "internal"]


@dataclass(frozen=True, slots=True)
class Span:
    """Ended operation, and its position in a trace."""

    name: str
    kind: Kind
    trace_id: int
    span_id: int
    parent_id: int | None  #: None: the trace begins with it
    began_at: datetime
    ended_at: datetime
    attributes: Mapping[str, str | int | float]
    error: str | None = None  #: a code of ours, where it failed
    link: Remote | None = None  #: its cause in another system's trace


#: Takes an ended span; never waits, and raises nothing.
Emit = Callable[[Span], None]


log = structlog.get_logger()

Attributes = dict[str, str | int | float]
Parameters = ParamSpec("Parameters")

_ROUTES: Final = {Source.WEBHOOK.value: "/webhooks/{account}", Source.CALLBACK.value: "/callbacks/{token}"}
_CALL_NAMES: Final = {
    Source.POLL.value: "ask",
    Source.CREATE.value: "create",
    Source.CANCEL.value: "cancel",
    Source.CAPTURE.value: "capture",
    Source.REFUND.value: "refund",
}
_INCOMING: Final = frozenset({*_ROUTES, Source.RETURN.value})


def _never_raises(
    parse_traceparent: "Callable[Concatenate[Traces, Parameters], None]",
) -> "Callable[Concatenate[Traces, Parameters], None]":
    """Log bugs in the tracing function instead of raising them, once of each kind."""

    def guarded(traces: "Traces", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            parse_traceparent(traces, *args, **kwargs)
        except Exception as fault:  # noqa: BLE001 - see above
            traces.note_fault(fault)

    return guarded


class Traces:
    """Spans of the sampled share of inbox messages. Thread-safe."""

    def __init__(
        self,
        emit: Emit,
        sinks: Mapping[str, str],
        clock: Callable[[], datetime],
        *,
        share: float,
        trusts_incoming: bool,
    ) -> None:
        """Set up the traces; `sinks` has the kinds by name, and a share of 0 samples none."""
        self._emit = emit
        self._sinks = dict(sinks)
        self._clock = clock
        self._limit = sampling_limit(share)
        self._trusts_incoming = trusts_incoming
        self._faults: set[str] = set()  #: kinds that were logged

    def note_fault(self, fault: Exception) -> None:
        """Log a bug once of its kind: it may be met thousands of times a second."""
        kind = type(fault).__name__
        if kind not in self._faults:
            self._faults.add(kind)
            log.error("trace.failed", exc_info=fault)

    def samples(self, message_id: str) -> bool:
        """Return whether the message's trace is sampled."""
        return is_sampled(message_id, self._limit)

    @_never_raises
    def received(
        self, batch: Sequence[tuple[Arrival, object, float]], outcomes: Sequence[Outcome], began: float, ended: float
    ) -> None:
        """Trace a batch that was recorded.

        `began` and `ended` are the times of its commit, by the clock by which each arrived.
        """
        limit, size = self._limit, len(batch)
        if not limit:
            return
        for (arrival, _, came), outcome in zip(batch, outcomes, strict=True):
            message_id = arrival.id if isinstance(outcome, ServiceError) else outcome.id
            if is_sampled(message_id, limit):
                self._receive(arrival, message_id, outcome, size, (came, began, ended))

    def _receive(
        self, arrival: Arrival, message_id: str, outcome: Outcome, size: int, times: tuple[float, float, float]
    ) -> None:
        came, began, ended = times
        error = outcome if isinstance(outcome, ServiceError) else None
        attributes: Attributes = {
            "receipted.account": arrival.account,
            "receipted.source": arrival.source,
            "receipted.message.id": message_id,
            "receipted.outcome": _outcome_word(outcome),
            "receipted.batch.size": size,
            "receipted.queue.seconds": began - came,
            "receipted.commit.seconds": ended - began,
        }
        if arrival.source in _ROUTES:
            attributes["http.request.method"] = "POST"
            attributes["http.route"] = _ROUTES[arrival.source]
            attributes["http.response.status_code"] = error.status if error is not None else 200
        self._emit(
            Span(
                "receive",
                "server",
                trace_id_of(message_id),
                root_span_id(arrival.id),
                None if arrival.id == message_id else root_span_id(message_id),  # the provider delivered it again
                arrival.received_at,
                arrival.received_at + timedelta(seconds=ended - came),
                attributes,
                error.code if error is not None else None,
                parse_traceparent(json.loads(arrival.headers)) if self._trusts_incoming else None,
            )
        )

    @_never_raises
    def decided(self, messages: Sequence[InboxMessage]) -> None:
        """Trace the messages of a commit that has just ended; postponed ones are left out."""
        limit = self._limit
        for message in messages if limit else ():
            if is_sampled(message.id, limit) and message.decided_at is not None and message.decision is not None:
                self._decide(message, message.decided_at, len(messages))

    def _decide(self, message: InboxMessage, at: datetime, size: int) -> None:
        is_dead = message.status == InboxStatus.DEAD.value
        attributes: Attributes = {
            "receipted.account": message.account,
            "receipted.source": message.source,
            "receipted.message.id": message.id,
            "receipted.outcome": "dead" if is_dead else message.decision or "",
            "receipted.batch.size": size,
        }
        if message.payment_id is not None:
            attributes["receipted.payment.id"] = message.payment_id
        numbers = [entry["transition"] for entry in message.outcomes if "transition" in entry]
        if numbers:
            attributes["receipted.transition.number"] = numbers[-1]
        has_root = message.source in _INCOMING or (message.source in _CALL_NAMES and message.http_status is not None)
        self._emit(
            Span(
                "decide",
                "internal",
                trace_id_of(message.id),
                decision_span_id(message.id, at),
                root_span_id(message.id) if has_root else None,
                at,
                max(at, self._clock()),
                attributes,
                "dead" if is_dead else None,
            )
        )

    @_never_raises
    def answered(self, message: InboxMessage) -> None:
        """Trace a call of ours whose answer is kept as this message."""
        name = _CALL_NAMES.get(message.source)
        if name is not None and message.http_status is not None and self.samples(message.id):
            began_at = message.provider_time or message.received_at
            attributes: Attributes = {
                "receipted.message.id": message.id,
                "http.response.status_code": message.http_status,
            }
            self._call(name, message.account, message.about, message.id, (began_at, message.received_at), attributes)

    @_never_raises
    def unanswered(
        self, source: Source, account: str, payment_id: str, error: ServiceError, began_at: datetime
    ) -> None:
        """Trace a failed call of ours; a trace of its own, as no message holds an answer."""
        an_id = new_id()
        if self.samples(an_id):
            status = getattr(error, "http_status", None)
            attributes: Attributes = {} if status is None else {"http.response.status_code": status}
            times = (began_at, max(began_at, self._clock()))
            self._call(_CALL_NAMES[source.value], account, payment_id, an_id, times, attributes, error.code)

    def _call(
        self,
        name: str,
        account: str,
        payment_id: str | None,
        an_id: str,
        times: tuple[datetime, datetime],
        attributes: Attributes,
        error: str | None = None,
    ) -> None:
        attributes["receipted.account"] = account
        if payment_id is not None:
            attributes["receipted.payment.id"] = payment_id
        self._emit(Span(name, "client", trace_id_of(an_id), root_span_id(an_id), None, *times, attributes, error))

    def traceparent(self, message: OutboxMessage) -> str | None:
        """Return the header for the next delivery attempt; None if not sampled."""
        if not self.samples(message.cause):
            return None
        return format_traceparent(trace_id_of(message.cause), delivery_span_id(message.id, message.attempts + 1))

    @_never_raises
    def delivered(self, settled: Settlement) -> None:
        """Trace a recorded attempt to deliver an effect."""
        message, attempt = settled.message, settled.attempt
        if not self.samples(message.cause):
            return
        number, system = message.attempts + 1, self._sinks.get(message.sink, "")
        is_delivered = settled.status is OutboxStatus.DELIVERED
        outcome = "delivered" if is_delivered else "dead" if settled.status is OutboxStatus.DEAD else "failed"
        attributes: Attributes = {
            "receipted.account": message.account,
            "receipted.sink": message.sink,
            "receipted.effect": message.effect,
            "receipted.effect.id": message.id,
            "receipted.attempt": number,
            "receipted.outcome": outcome,
        }
        if message.payment_id is not None:
            attributes["receipted.payment.id"] = message.payment_id
        kind: Kind = "internal"
        if system == "http":
            kind = "client"
            attributes["http.request.method"] = "POST"
            if number > 1:
                attributes["http.request.resend_count"] = number - 1
            if attempt.http_status is not None:
                attributes["http.response.status_code"] = attempt.http_status
        elif system in DRIVERS:
            kind = "producer"
            attributes |= {
                "messaging.system": system,
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.message.id": f"msg_{message.id}",
            }
        self._emit(
            Span(
                "deliver",
                kind,
                trace_id_of(message.cause),
                delivery_span_id(message.id, number),
                decision_span_id(message.cause, message.created_at),
                attempt.started_at,
                attempt.started_at + timedelta(milliseconds=attempt.duration_ms),
                attributes,
                None if is_delivered else outcome,
            )
        )


def _outcome_word(outcome: Outcome) -> str:
    if isinstance(outcome, ServiceError):
        return "unavailable" if outcome.status == 503 else "failed"
    return "duplicate" if outcome.is_duplicate else "variant" if outcome.is_variant else "recorded"
