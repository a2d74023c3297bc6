"""Log lines: one redacted JSON object each, for structlog, logging and warnings."""

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from receipted.redaction import redact_event

Format = Literal["json", "console"]

#: The words that names of events are made of: those of docs/glossary.md, and plain verbs. A test holds this.
GLOSSARY: Final = frozenset(
    {
        # things
        *("account", "answer", "audit", "breaker", "budget", "callback", "chain", "claim", "clock", "conflict"),
        *("connection", "create", "database", "decision", "delivery", "effect", "file", "handler", "hint"),
        *("history", "inbox", "journal", "key", "lease", "line", "log", "message", "migration", "observation"),
        *("operator", "outbox", "payment", "poll", "poller", "process", "provider", "quarantine", "queue"),
        *("reconciliation", "request", "return", "review", "sandbox", "schema", "service", "settings"),
        *("alarm", "push", "silence", "sink", "storage", "transition", "warning", "webhook", "worker"),
        *("drift", "partition", "reconcile", "retention", "trace", "login", "session"),
        # what became of them
        *("abandoned", "advanced", "answered", "applied", "asked", "broken", "cancelled", "checked"),
        *("claimed", "closed", "conflicting", "created", "dead", "decided", "delivered", "done", "dropped"),
        *("ended", "expired", "exposed", "failed", "found", "full", "gave", "late", "lost", "migrated", "missing"),
        *("opened", "parked", "paused", "read", "ready", "recorded", "redeemed", "redelivered", "redriven"),
        *("refused", "registered", "rejected", "released", "replayed", "rescued", "resolved", "resumed"),
        *(
            "retried",
            "sent",
            "short",
            "silent",
            "skipped",
            "sufficed",
            "stale",
            "started",
            "stopped",
            "stopping",
            "succeeded",
            "swept",
        ),
        *(
            "unavailable",
            "unheard",
            "unknown",
            "unreadable",
            "unrecorded",
            "unrenderable",
            "unstorable",
            "unverified",
            "up",
            "verified",
        ),
        *("waiting", "withheld"),
    }
)

_MAX_FRAMES: Final = 30
_MAX_CAUSES: Final = 8
_LEADING_FIELDS: Final = ("timestamp", "level", "event")

#: Talkative at info, some with URLs, and brokers' at debug with whole messages: what matters of a call to a provider or
#: a sink is an event of its own.
_QUIET_LOGGERS: Final = (
    *("httpx2", "httpcore2", "httpx", "httpcore", "urllib3", "asyncio", "transitions", "alembic"),
    *("faststream", "nats", "aio_pika", "aiormq", "pamqp", "aiokafka", "redis"),
)
_UVICORN_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


#: Of ordinary work, one line for each thing done: under load a line stands for many. Anything else is always written.
SAMPLED: Final = frozenset({"delivery.recorded", "delivery.duplicate", "message.decided", "effect.delivered"})


class Sampler:
    """Sampler of frequent events: one line may stand for many. Thread-safe."""

    def __init__(self, above: int, every: int) -> None:
        self._above = above
        self._every = every
        self._states: dict[str, list[float]] = {}  # by event: the second's begin, lines in it, lines left out
        self._lock = threading.Lock()

    def __call__(self, event: str) -> int:
        """Return how many lines the next one stands for; 0 to leave it out."""
        now = time.monotonic()
        with self._lock:
            state = self._states.setdefault(event, [now, 0, 0])
            if now - state[0] >= 1:
                state[0], state[1] = now, 0
            state[1] += 1
            if state[1] > self._above and state[2] + 1 < self._every:
                state[2] += 1
                return 0
            count = int(state[2]) + 1
            state[2] = 0
            return count


_sampler = Sampler(50, 1000)


def sample(event: str) -> int:
    """Return how many lines of a frequent event the next stands for; 0 to write none.

    Ask before the line is made, and write the number as `sampled`.
    """
    return _sampler(event)


def _sample_rest(_logger: object, method: str, event: EventDict) -> EventDict:
    """Sample lines of SAMPLED events that were not sampled before."""
    if method == "info" and event.get("event") in SAMPLED and "sampled" not in event:
        count = _sampler(event["event"])
        if not count:
            raise structlog.DropEvent
        event["sampled"] = count
    return event


def configure(
    level: str = "info",
    format: Format = "json",  # noqa: A002 - the setting's name
    stream: TextIO | None = None,
    *,
    sample_above: int = 50,
    sample_every: int = 1000,
) -> None:
    """Write all log lines of this process to the stream (stderr), redacted.

    One per line. That holds for structlog, for logging and what uses it (uvicorn with `log_config=None`), and for
    warnings. Of ordinary work, more than `sample_above` lines of one event in a second are one in `sample_every`. A
    repeat call replaces what the one before did.
    """
    global _sampler  # noqa: PLW0603 - as logging itself, there is one for the process
    _sampler = Sampler(sample_above, sample_every)
    out = stream if stream is not None else sys.stderr
    severity = logging.getLevelNamesMapping()[level.upper()]
    first: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    last: list[Processor] = [
        exceptions_as_data,
        redact_event,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _as_json if format == "json" else _console(out),
    ]
    structlog.configure(
        processors=[_sample_rest, *first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(out),
        # a cached logger would keep the stream and level of an earlier call
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*first, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            keep_exc_info=False,
            keep_stack_info=False,
        )
    )
    root = logging.getLogger()
    for other in [found for found in root.handlers if isinstance(found, _Handler)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(severity)
    for name in _UVICORN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate, logger.disabled = True, False
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(severity, logging.WARNING))
    logging.captureWarnings(True)


class _Handler(logging.StreamHandler[TextIO]):
    """Handler that replaces a line it cannot format.

    The usual report would repeat its arguments unmasked.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        line = {"level": "error", "event": "log.unrenderable", "logger": record.name, "line": record.lineno}
        try:
            self.stream.write(json.dumps(line) + self.terminator)
        except (OSError, ValueError):
            return  # the stream itself is gone; there is nowhere left to say so


def exceptions_as_data(logger: object, method: str, event: EventDict) -> EventDict:
    """Convert `exc_info` to type, message, frames and causes.

    Local variables and source lines are left out.
    """
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)  # source lines
    found = _exception_of(given)
    if found is not None:
        event["exception"] = _exception(found, _MAX_CAUSES)
    return event


def _exception_of(given: ExcInfo | BaseException | bool | None) -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1]
    return sys.exc_info()[1] if given else None


def _exception(fault: BaseException, depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {
        "type": type(fault).__qualname__,
        "message": _text(fault),
        "frames": _frames(fault.__traceback__),
    }
    notes = getattr(fault, "__notes__", None)
    if notes:
        data["notes"] = [_text(note) for note in notes]
    if depth <= 0:
        return data
    if isinstance(fault, BaseExceptionGroup):
        data["exceptions"] = [_exception(inner, depth - 1) for inner in fault.exceptions[:_MAX_CAUSES]]
    if fault.__cause__ is not None:
        data["cause"] = _exception(fault.__cause__, depth - 1)
    elif fault.__context__ is not None and not fault.__suppress_context__:
        data["context"] = _exception(fault.__context__, depth - 1)
    return data


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - another's __str__ must not cost the line
        return "[unprintable]"


def _frames(trace: TracebackType | None) -> list[str]:
    """Return the frames as "file:line function", innermost last."""
    found = [(frame.f_code, line) for frame, line in traceback.walk_tb(trace)][-_MAX_FRAMES:]
    return [
        f"{code.co_filename}:{line} {code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}"
        for code, line in found
    ]


def _as_json(logger: object, method: str, event: EventDict) -> str:
    line = {name: event[name] for name in _LEADING_FIELDS if name in event}
    line.update(event)
    # ASCII only: a lone surrogate could not be written
    return json.dumps(line)


def _console(stream: TextIO) -> Processor:
    renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())

    def render(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        fault = event.pop("exception", None)
        line = renderer(logger, method, event)
        return f"{line}\n{_exception_text(fault)}" if isinstance(fault, Mapping) else line

    return render


def _exception_text(fault: Mapping[str, Any]) -> str:
    lines = [f"  {frame}" for frame in fault.get("frames", ())]
    lines.append(f"  {fault.get('type')}: {fault.get('message')}")
    for name in ("cause", "context"):
        if isinstance(fault.get(name), Mapping):
            lines += [f"  {name}:", _exception_text(fault[name])]
    return "\n".join(lines)
