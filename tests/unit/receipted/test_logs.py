"""Every way into the log leads through redaction and comes out as one line of JSON."""

import ast
import io
import json
import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
import structlog

from receipted import logs
from receipted.logs import GLOSSARY, configure
from receipted.redaction import forget_secrets, register_secrets

ROOT = Path(__file__).parents[3]
REGISTERED = "a-configured-webhook-key"
CARD = "4111 1111 1111 1111"
TEXT = f"{REGISTERED} {CARD} Bearer abc.def-ghi sk_live_abcdefgh GB33BUKB20201555555555"
TELLING = (REGISTERED, "4111", "abc.def", "sk_live_a", "BUKB2020")


@pytest.fixture
def stream():
    root = logging.getLogger()
    before = (list(root.handlers), root.level, warnings.showwarning)
    levels = {name: logging.getLogger(name).level for name in ("httpx2", "httpcore2", "httpx", "httpcore", "asyncio")}
    register_secrets([REGISTERED])
    out = io.StringIO()
    yield out
    logging.captureWarnings(capture=False)
    root.handlers[:], level, warnings.showwarning = before
    root.setLevel(level)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    forget_secrets()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def raise_chained():
    try:
        local = TEXT
        raise ValueError(local)
    except ValueError as fault:
        fault.add_note(TEXT)
        raise RuntimeError(f"again: {TEXT}") from fault


def raise_group():
    raise ExceptionGroup(TEXT, [ValueError(TEXT), KeyError(TEXT)])


def during(act, log):
    try:
        act()
    except Exception:
        log.exception("message.failed")


class Telling:
    def __repr__(self):
        return TEXT


def logger():
    return structlog.get_logger()


def bound_context():
    structlog.contextvars.bind_contextvars(request_id=TEXT)
    logger().info("payment.parked")


def a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(UserWarning(TEXT), UserWarning, "x.py", 1)


PATHS = {
    "keyword": lambda: logger().info("payment.parked", note=TEXT),
    "name of a keyword": lambda: logger().info("payment.parked", **{TEXT: 1}),
    "private keyword": lambda: logger().info("payment.parked", _note=TEXT),
    "level and timestamp": lambda: logger().info("payment.parked", level=TEXT, timestamp=TEXT),
    "nested keyword": lambda: logger().info("payment.parked", note={"a": [{TEXT: (TEXT, TEXT.encode())}]}),
    "headers": lambda: logger().info("payment.parked", headers=(("x-signature", TEXT), (b"cookie", TEXT.encode()))),
    "object": lambda: logger().info("payment.parked", note=Telling()),
    "exception as a value": lambda: logger().info("payment.parked", error=ValueError(TEXT)),
    "event": lambda: logger().info(TEXT),
    "positional": lambda: logger().info("payment %s %r", TEXT, TEXT),
    "bound logger": lambda: logger().bind(note=TEXT).info("payment.parked"),
    "bound context": bound_context,
    "exception": lambda: during(raise_chained, logger()),
    "exception group": lambda: during(raise_group, logger()),
    "stack": lambda: logger().info("payment.parked", note=TEXT, stack_info=True),
    "logging with arguments": lambda: logging.getLogger("other").warning("saw %s and %r", TEXT, [TEXT]),
    "logging with a mapping": lambda: logging.getLogger("other").warning("saw %(a)s", {"a": TEXT}),
    "logging with extra": lambda: logging.getLogger("other").warning("saw it", extra={"note": TEXT}),
    "logging a stack": lambda: logging.getLogger("other").warning("saw %s", TEXT, stack_info=True),
    "logging an exception": lambda: during(raise_chained, logging.getLogger("other")),
    "logging a broken format": lambda: logging.getLogger("other").warning("saw %d", TEXT),
    "logger's name": lambda: logging.getLogger(TEXT).warning("saw it"),
    "uvicorn's access": lambda: logging.getLogger("uvicorn.access").info(
        '%s - "%s %s HTTP/%s" %d', "192.0.2.1:5", "GET", f"/return/{REGISTERED}?a=abc.def&b=4111", "1.1", 200
    ),
    "uvicorn's errors": lambda: during(raise_group, logging.getLogger("uvicorn.error")),
    "warnings": a_warning,
}


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize("path", PATHS)
def test_no_way_into_the_log_lets_a_secret_out(path, format_, stream, capsys):
    logging.getLogger().handlers.clear()  # pytest's own would raise what ours reports
    configure("debug", format_, stream)
    PATHS[path]()
    shown = stream.getvalue()
    assert shown
    assert not [word for word in TELLING if word in shown]
    assert capsys.readouterr() == ("", "")
    if format_ == "json":
        for line in lines(stream):
            assert line["level"]
            assert line["event"]


def test_a_line_says_when_and_how_severe_and_carries_its_ids(stream):
    configure(stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="r-1", message_id="m-1", payment_id="p-1"):
        logger().warning("delivery.rejected", reason="signature_wrong")
        logging.getLogger("uvicorn.error").info("Started")
    first, second = lines(stream)
    assert list(first)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", first.pop("timestamp"))
    ids = {"request_id": "r-1", "message_id": "m-1", "payment_id": "p-1"}
    assert first == {"level": "warning", "event": "delivery.rejected", "reason": "signature_wrong", **ids}
    assert second.items() >= {"level": "info", "event": "Started", "logger": "uvicorn.error", **ids}.items()


def test_an_exception_is_its_type_message_frames_and_cause_without_locals(stream):
    configure(stream=stream)
    during(raise_chained, logger())
    fault = lines(stream)[0]["exception"]
    assert (fault["type"], fault["cause"]["type"]) == ("RuntimeError", "ValueError")
    assert fault["frames"][-1].endswith("raise_chained")
    assert set(fault) == {"type", "message", "frames", "cause"}
    assert set(fault["cause"]) == {"type", "message", "frames", "notes"}


def test_an_exception_that_cannot_be_told_costs_no_line(stream):
    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    def act():
        raise Unprintable

    configure(stream=stream)
    during(act, logger())
    assert lines(stream)[0]["exception"]["message"] == "[unprintable]"


def test_less_severe_lines_are_left_out(stream):
    configure("warning", stream=stream)
    logger().info("payment.parked")
    logging.getLogger("other").info("hello")
    logger().error("payment.parked")
    assert [line["level"] for line in lines(stream)] == ["error"]


def test_libraries_that_tell_urls_are_quiet(stream):
    configure("debug", stream=stream)
    logging.getLogger("httpx2").info("HTTP Request: GET https://api.example.com")
    assert not stream.getvalue()


def test_a_repeat_call_replaces_the_first(stream):
    earlier = io.StringIO()
    log = structlog.get_logger()
    configure(stream=earlier)
    configure(stream=stream)
    log.info("payment.parked")
    logging.getLogger("other").warning("once")
    assert not earlier.getvalue()
    assert len(lines(stream)) == 2


def test_the_default_stream_is_standard_error(stream, capsys):
    configure()
    logger().info("service.started")
    assert capsys.readouterr().err.count("service.started") == 1
    assert sys.stderr is not stream


def test_a_lone_surrogate_and_a_line_break_stay_on_one_line(stream):
    configure(stream=stream)
    logger().info("payment.parked", note="\ud800\n\u2028")
    assert len(stream.getvalue().splitlines()) == 1
    assert lines(stream)[0]["note"] == "\ud800\n\u2028"


def event_names():
    # the sandbox plays other companies, which have words of their own
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in {"tests", "sandbox"}]
    for package in packages:
        for file in package.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                    owner = node.func.value
                    is_log = isinstance(owner, ast.Name) and owner.id.strip("_") in {"log", "logger"}
                    if is_log and node.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}:
                        yield f"{file.relative_to(ROOT)}:{node.lineno}", node.args[0]


def test_event_names_are_made_of_words_of_the_glossary():
    found = list(event_names())
    assert found
    literals = [(place, node.value) for place, node in found if isinstance(node, ast.Constant)]
    wrong = [
        (place, name)
        for place, name in literals
        if not re.fullmatch(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*", name) or not set(re.split(r"[._]", name)) <= GLOSSARY
    ]
    assert not wrong


def test_of_ordinary_work_a_line_stands_for_many(stream):
    """So many a second are written, and of the rest one in so many; the lines add up to what was done."""
    logs.configure(stream=stream, sample_above=3, sample_every=10)
    log = structlog.get_logger()
    for _ in range(35):
        log.info("delivery.recorded", account="a")
        log.info("message.decided", account="a")
        log.info("effect.delivered", account="a")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for event in ("delivery.recorded", "message.decided", "effect.delivered"):
        assert [line["sampled"] for line in lines if line["event"] == event] == [1, 1, 1, 10, 10, 10]


def test_what_was_left_out_is_counted_by_the_next_line(monkeypatch):
    """A new second begins with a line, which stands for those before it."""
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    sampler = logs.Sampler(2, 100)
    assert [sampler("delivery.recorded") for _ in range(5)] == [1, 1, 0, 0, 0]
    assert sampler("delivery.duplicate") == 1
    now[0] += 1
    assert [sampler("delivery.recorded") for _ in range(3)] == [4, 1, 0]


def test_refusals_and_warnings_are_never_left_out(stream):
    """However many there are; nor is a line that says how many it stands for."""
    logs.configure(stream=stream, sample_above=1, sample_every=10)
    log = structlog.get_logger()
    for _ in range(20):
        log.info("delivery.refused")
        log.warning("delivery.rejected")
        log.warning("delivery.recorded")
        log.info("delivery.duplicate", sampled=5)
    assert len(stream.getvalue().splitlines()) == 80
