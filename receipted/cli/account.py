"""`receipted accounts ACCOUNT`: one account as its page of the console tells it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from console.account_rows import KeyLine, look
from console.parts import Account
from receipted.cli import drift_report, output, push
from receipted.console_accounts import accounts_of
from receipted.wiring import Service

_KEYS: Final = ("Key", "Standing", "Valid from", "Ends", "Verified lately", "Last")
_RUNS: Final = ("ID", "Began", "Status", "Wanted by", "Since", "Listed", "Asked", "Failed", "Found")
_REJECTED: Final = ("In quarantine for", "How many")


def tell(service: Service, name: str, asked: dict[str, Any], *, settings: bool, as_json: bool) -> None:
    """Print what is known of the account; `asked` is how it is asked, as the list of accounts tells it."""
    account = accounts_of(service)[name]
    with service.database.read() as unit:
        found = look(unit, account, service.clock())
    data = {**asked, **_about(account)}
    if as_json:
        output.as_json({**data, **_found(found), **({"settings": dict(account.configuration)} if settings else {})})
        return
    output.fields({key: value for key, value in data.items() if not isinstance(value, list | dict)})
    output.say("")
    for alarm in found["alarms"]:
        output.say(output.shown(f"ALARM {alarm['name']}: {alarm['reason']}"))
    for words, _tone in found["why"]:
        output.say(words)
    _section(_KEYS, [_key_row(line) for line in found["keys"]], "no key is configured: every delivery is refused")
    _section(_REJECTED, list(found["rejected"].items()), "nothing is in quarantine")
    events = [push.event_row(name, event)[1:] for event in found["push"].events]
    _section(push.EVENTS[1:], events, "no push was measured in the last 30 days")
    _section(_RUNS, [_run_row(run, drift) for run, drift in found["reconciliations"]], "nothing was reconciled yet")
    if settings:
        _section(("Setting", "Value"), [(key, value or "not set") for key, value in account.configuration], "")


def _section(columns: Sequence[str], rows: Sequence[Sequence[Any]], otherwise: str) -> None:
    output.say("")
    if rows:
        output.table(columns, rows)
    else:
        output.say(otherwise)


def _about(account: Account) -> dict[str, Any]:
    past, future = account.window
    return {
        "environment": account.environment,
        "webhook_url": account.webhook_url,
        "default_kind": account.default_kind,
        "kinds": list(account.lifecycles),
        "window_past_seconds": past,
        "window_future_seconds": future,
    }


def _found(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "why": [words for words, _tone in found["why"]],
        "keys": [_key_data(line) for line in found["keys"]],
        "rejected": found["rejected"],
        "push": push.as_data(found["push"]),
        "days": [{**asdict(day), "day": day.day.isoformat()} for day in found["days"]],
        "reconciliations": [drift_report.as_data(run, is_whole=False) for run, _drift in found["reconciliations"]],
    }


def _key_row(line: KeyLine) -> tuple[Any, ...]:
    return (line.key.id, line.standing, line.key.not_before, line.key.not_after, line.verified, line.last_at or "never")


def _key_data(line: KeyLine) -> dict[str, Any]:
    return {
        "id": line.key.id,
        "standing": line.standing,
        "not_before": line.key.not_before,
        "not_after": line.key.not_after,
        "verified_lately": line.verified,
        "last_at": line.last_at,
    }


def _run_row(run: Any, drift: Sequence[tuple[str, int]]) -> tuple[Any, ...]:
    found = ", ".join(f"{count} {name}" for name, count in drift)
    return (
        *(output.short(run.id), run.began_at, run.status, run.asked_by, run.since, run.listed, run.asked, run.failed),
        found or run.last_error,
    )
