"""`receipted tail` and `receipted listen`: events as they happen, until Ctrl-C."""

import json as json_module
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from receipted.cli import output
from receipted.cli.options import AccountName, AsJson, open_service, require_account
from receipted.wiring import Service
from service.text import short, shown
from statemachine.phases import Source
from storage.changes import ChangeEvent, Follower
from storage.database import values
from storage.errors import StorageUnavailable

#: Seconds between two looks, and between two where the database is away.
_POLL_INTERVAL_S: Final = 0.25
_OUTAGE_POLL_INTERVAL_S: Final = 2.0

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
    json: AsJson = False,
) -> None:
    """Print an account's deliveries as they arrive, each with its decision.

    Rejected ones too. Bodies are printed on request only.
    """

    def wanted(event: ChangeEvent) -> bool:
        return event.what == "rejected" or (event.what in ("received", "decided") and event.row.source in _FROM_OUTSIDE)

    with open_service(context) as service:
        require_account(service, account)
        _follow(service, account, since, count, as_json=json, wanted=wanted, with_bodies=bodies)


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
