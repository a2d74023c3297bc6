"""`receipted tail` and `receipted listen`: events as they happen, until Ctrl-C."""

import asyncio
import json as json_module
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Annotated, Any, Final

import httpx2
import typer

from fulfilment.contract import MAX_ANSWER_BODY_BYTES, OwedEffect
from fulfilment.http_sink import HttpSink
from receipted import redaction
from receipted.cli import output
from receipted.cli.exits import InvalidInput
from receipted.cli.options import AccountName, AsJson, open_service, require_account
from receipted.cli.trigger import SecretFile, SinkName, print_answer, send, signing_sink
from receipted.wiring import Service
from service.text import short, shown
from statemachine.phases import Source
from storage.changes import ChangeEvent, Follower
from storage.database import values
from storage.errors import StorageUnavailable

#: Seconds between two looks, and between two where the database is away.
_POLL_INTERVAL_S: Final = 0.25
_OUTAGE_POLL_INTERVAL_S: Final = 2.0

#: Effects that are remembered as forwarded; an effect's rows for several sinks are committed together.
_REMEMBERED_EFFECTS: Final = 10_000

_FORWARD_TIMEOUT_S: Final = 15.0

#: Of one connection, and not of what is forwarded.
_HOP_HEADERS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})

_FROM_OUTSIDE: Final = frozenset({Source.WEBHOOK, Source.CALLBACK, Source.RETURN})

Count = Annotated[
    int | None, typer.Option("--count", min=1, metavar="N", help="End after so many lines.", show_default=False)
]
Since = Annotated[float, typer.Option("--since", metavar="SECONDS", min=0, help="Begin so long ago.")]


def tail(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's.", show_default=False)] = None,
    since: Since = 0,
    count: Count = None,
    json: AsJson = False,
) -> None:
    """Print deliveries, decisions, moves, effects and attempts as they happen.

    Looks at the database only, so that it may run anywhere; with --json each line is one object.
    """
    with open_service(context) as service:
        require_account(service, account)
        _follow(service, account, since, count, as_json=json, wanted=lambda _event: True)


def listen(
    context: typer.Context,
    account: AccountName,
    bodies: Annotated[bool, typer.Option("--bodies", help="Print each body too; it may hold personal data.")] = False,
    since: Since = 0,
    count: Count = None,
    forward_to: Annotated[
        str | None,
        typer.Option("--forward-to", metavar="URL", help="Hand the account's effects on to your endpoint, signed."),
    ] = None,
    deliveries: Annotated[
        bool,
        typer.Option("--deliveries", help="With --forward-to: the provider's deliveries, byte for byte, not effects."),
    ] = False,
    sink: SinkName = None,
    secret_file: SecretFile = None,
    json: AsJson = False,
) -> None:
    """Print an account's deliveries as they arrive, each with its decision.

    Rejected ones too. Bodies are printed on request only. With --forward-to, each effect that becomes owed is sent to
    URL as well, with its `webhook-id`; that records nothing, and what the sinks are owed stays owed. Runs wherever
    the database is reached.
    """
    if forward_to is not None:
        target = signing_sink(context, forward_to, sink=sink, secret_file=secret_file)
        with open_service(context) as service:
            require_account(service, account)
            follower = Follower(service.database, service.clock() - timedelta(seconds=since), account)
            what = _forwarded_deliveries(service, follower) if deliveries else _forwarded_effects(service, follower)
            _forward(what, target, forward_to, count, as_json=json)
        return
    if deliveries or sink or secret_file:
        raise InvalidInput("--deliveries, --sink and --secret-file go with --forward-to URL", param="forward-to")

    def wanted(event: ChangeEvent) -> bool:
        return event.what == "rejected" or (event.what in ("received", "decided") and event.row.source in _FROM_OUTSIDE)

    with open_service(context) as service:
        require_account(service, account)
        _follow(service, account, since, count, as_json=json, wanted=wanted, with_bodies=bodies)


def _forwarded_effects(service: Service, follower: Follower) -> Iterator[OwedEffect]:
    """Yield each effect once, as the first of its sinks gets it."""
    seen: dict[str, None] = {}
    for event in _events(service, follower):
        if event.what != "owed":
            continue
        effect_id = json_module.loads(event.row.payload)["data"]["effect_id"]
        if effect_id in seen:
            continue
        seen[effect_id] = None
        if len(seen) > _REMEMBERED_EFFECTS:
            del seen[next(iter(seen))]
        row = event.row
        yield OwedEffect(row.travels_as, row.effect, row.payment_id, 1, row.payload, row.created_at)


def _forwarded_deliveries(service: Service, follower: Follower) -> Iterator[Any]:
    """Yield each authentic delivery from outside."""
    for event in _events(service, follower):
        if event.what == "received" and event.row.source in _FROM_OUTSIDE:
            yield event.row


def _forward(what: Iterator[Any], target: HttpSink, url: str, count: int | None, *, as_json: bool) -> None:
    """Send what comes to the URL, one after the other, and print each answer."""
    output.note(f"forwarding to {url}; Ctrl-C ends it")
    with asyncio.Runner() as runner:
        for each in islice(what, count):
            if isinstance(each, OwedEffect):
                result, took_ms = runner.run(send(target, each))
                print_answer(each, url, result, took_ms, as_json=as_json)
            else:
                runner.run(_forward_delivery(each, url, as_json=as_json))
        runner.run(target.aclose())


async def _forward_delivery(message: Any, url: str, *, as_json: bool) -> None:
    """Send the bytes and headers of one delivery; its credentials were never kept."""
    headers = [(name, value) for name, value in message.headers if name.lower() not in _HOP_HEADERS]
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=_FORWARD_TIMEOUT_S) as client:
            answer = await client.post(url, content=message.body, headers=headers)
        error, status, body = None, answer.status_code, redaction.redact_answer(answer.content[:MAX_ANSWER_BODY_BYTES])
    except httpx2.HTTPError as fault:
        error, status, body = f"no answer ({type(fault).__name__})", None, None
    if as_json:
        line = json_module.dumps(
            {"message": message.id, "to": url, "http_status": status, "error": error, "answer": body}
        )
        output.write_bytes(f"{line}\n".encode())
        return
    output.say(f"{message.source} {short(message.id)}, {len(message.body)} bytes, to {url}")
    output.say(error or f"answered {status}")
    if body:
        output.say(shown(body, keep="\n\t"))


def _follow(
    service: Service,
    account: str | None,
    since: float,
    count: int | None,
    *,
    as_json: bool,
    wanted: Any,
    with_bodies: bool = False,
) -> None:
    follower = Follower(service.database, service.clock() - timedelta(seconds=since), account)
    printed = 0
    for event in _events(service, follower):
        if not wanted(event):
            continue
        if as_json:
            line = json_module.dumps(_data(event, with_bodies=with_bodies), default=output.json_default)
            output.write_bytes(f"{line}\n".encode())
        else:
            output.say(_line(event))
            if with_bodies and event.what in ("received", "rejected"):
                output.say(shown(event.row.body.decode("utf-8", "backslashreplace"), keep="\n\t"))
        printed += 1
        if count is not None and printed >= count:
            return


def _events(service: Service, follower: Follower) -> Iterator[ChangeEvent]:
    """Yield events until the caller stops; wait for the database while it is away."""
    is_away = False
    while True:
        try:
            news = follower.news(service.clock())
        except StorageUnavailable as error:
            if not is_away:
                output.note(f"the database is away: {error.message}; waiting for it")
            is_away = True
            time.sleep(_OUTAGE_POLL_INTERVAL_S)  # there is no signal when it is back
            continue
        if is_away:
            output.note("the database is back")
            is_away = False
        yield from news
        time.sleep(_POLL_INTERVAL_S)  # on SQLite there is no signal of other processes' writes


def _line(event: ChangeEvent) -> str:
    row = event.row
    parts: Mapping[str, Any] = {
        "received": lambda: (f"{row.source} {short(row.id)}", f"{len(row.body)} bytes", _key_text(row)),
        "rejected": lambda: (f"refused {short(row.id)}: {row.reason}", f"from {row.client}", f"{len(row.body)} bytes"),
        "decided": lambda: (
            f"{row.status} {short(row.id)}: {row.decision or row.status}",
            row.reason or row.last_error,
        ),
        "moved": lambda: (
            f"payment {short(row.payment_id)}: {row.from_state or 'new'} -> {row.to_state}",
            _move_reason(row),
        ),
        "owed": lambda: (f"owed {row.effect} to {row.sink} ({short(row.id)})",),
        "attempted": lambda: (f"{row.outcome} {short(row.outbox_id)}, try {row.number}", _attempt_result(row)),
    }
    words = ", ".join(filter(None, parts[event.what]()))
    return f"{shown(event.at)}  {row.account}  {shown(words)}"


def _key_text(message: Any) -> str | None:
    return f"key {message.key_id}" if message.key_id else None


def _move_reason(transition: Any) -> str:
    forced = "forced, " if transition.forced else ""
    return f"{forced}{transition.reason}"


def _attempt_result(attempt: Any) -> str:
    said = f"HTTP {attempt.http_status}, " if attempt.http_status else ""
    why = f": {attempt.error}" if attempt.error else ""
    return f"{said}{attempt.duration_ms} ms{why}"


def _data(event: ChangeEvent, *, with_bodies: bool) -> dict[str, Any]:
    without = {"headers", "payload"} | (set() if with_bodies else {"body"})
    row = {name: value for name, value in values(event.row).items() if name not in without}
    if isinstance(row.get("body"), bytes):
        row["body"] = row["body"].decode("utf-8", "backslashreplace")
    return {"event": event.what, "at": event.at, **row}
