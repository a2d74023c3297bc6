"""`receipted accounts`: polling of each provider account, and one account in full."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from poller.planner import is_budget_short
from receipted.cli import output, push_quality, reconciliations
from receipted.cli.exits import InvalidInput
from receipted.cli.options import AsJson, open_service, require_account
from receipted.wiring import Service, WiredAccount, budget_of
from service.account_status import KeyStatus, account_status
from service.accounts import ConfiguredAccount
from storage import poll_plans, rate_limits, webhook_health
from storage.database import Unit
from storage.rate_limits import Breaker
from storage.tables_support import PollPlan

_KEYS: Final = ("Key", "Standing", "Valid from", "Ends", "Verified lately", "Last")
_RUNS: Final = ("ID", "Began", "Status", "Wanted by", "Since", "Listed", "Asked", "Failed", "Found")
_REJECTED: Final = ("In quarantine for", "How many")


def print_account(service: Service, name: str, asked: dict[str, Any], *, settings: bool, as_json: bool) -> None:
    """Print one account in full; `asked` is its row in the list of accounts."""
    account = service.configured_accounts()[name]
    with service.database.read() as unit:
        found = account_status(unit, account, service.clock())
    data = {**asked, **_about(account)}
    if as_json:
        output.as_json({**data, **_found(found), **({"settings": dict(account.configuration)} if settings else {})})
        return
    fields = {key: value for key, value in data.items() if not isinstance(value, list | dict)}
    output.fields({**fields, "calls": ", ".join(account.capabilities) or "none"})
    output.say("")
    for alarm in found["alarms"]:
        output.say(output.shown(f"ALARM {alarm['name']}: {alarm['reason']}"))
    for words, _tone in found["why"]:
        output.say(words)
    _section(_KEYS, [_key_row(line) for line in found["keys"]], "no key is configured: every delivery is refused")
    _section(_REJECTED, list(found["rejected"].items()), "nothing is in quarantine")
    events = [push_quality.event_row(name, event)[1:] for event in found["push"].events]
    _section(push_quality.EVENTS[1:], events, "no push was measured in the last 30 days")
    _section(_RUNS, [_run_row(run, drift) for run, drift in found["reconciliations"]], "nothing was reconciled yet")
    if settings:
        _section(("Setting", "Value"), [(key, value or "not set") for key, value in account.configuration], "")


def _section(columns: Sequence[str], rows: Sequence[Sequence[Any]], otherwise: str) -> None:
    output.say("")
    if rows:
        output.table(columns, rows)
    else:
        output.say(otherwise)


def _about(account: ConfiguredAccount) -> dict[str, Any]:
    past, future = account.window
    return {
        "environment": account.environment,
        "webhook_url": account.webhook_url,
        "default_kind": account.default_kind,
        "kinds": list(account.lifecycles),
        "capabilities": {call: list(kinds) for call, kinds in account.capabilities.items()},
        "window_past_seconds": past,
        "window_future_seconds": future,
    }


def _found(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "why": [words for words, _tone in found["why"]],
        "journal": None if found["journal"] is None else asdict(found["journal"]),
        "keys": [_key_data(line) for line in found["keys"]],
        "rejected": found["rejected"],
        "push": push_quality.as_data(found["push"]),
        "days": [{**asdict(day), "day": day.day.isoformat()} for day in found["days"]],
        "reconciliations": [reconciliations.as_data(run, is_whole=False) for run, _drift in found["reconciliations"]],
    }


def _key_row(line: KeyStatus) -> tuple[Any, ...]:
    return (line.key.id, line.standing, line.key.not_before, line.key.not_after, line.verified, line.last_at or "never")


def _key_data(line: KeyStatus) -> dict[str, Any]:
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


_COLUMNS = ("Account", "Provider", "May ask", "Watched", "Would ask", "Price", "Asks now", "Planned", "Alarms")


def accounts(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="ACCOUNT", help="Everything about this account, and not all.", show_default=False),
    ] = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Also how it is configured; of secrets, where they are read from.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show how each account is polled: budget, load, and the provider's availability.

    The price is the expected seconds of not knowing that one more question must save: the dearer, the fewer. Of one
    account its webhook URL, keys, quarantine, push of 30 days and last reconciliations are shown too.
    """
    if settings and name is None:
        raise InvalidInput("--settings is about one account: name it", param="settings")
    with open_service(context) as service:
        require_account(service, name)
        with service.database.read() as unit:
            found = [_account(service, unit, each) for each in service.accounts if name in (None, each)]
        if name is not None:
            print_account(service, name, found[0], settings=settings, as_json=json)
            return
    if json:
        output.as_json(found)
        return
    output.table(_COLUMNS, map(_row, found))
    for each in found:
        if each["is_budget_short"]:
            crowd = f"{each['watched']} payment{'' if each['watched'] == 1 else 's'}"
            output.say(
                f"{each['account']}: the budget is too small to ask about {crowd} as often as "
                f"poller.longest_seconds wants; each waits up to {each['stretch']:.1f} times as long"
            )


def _account(service: Service, unit: Unit, name: str) -> dict[str, Any]:
    wired, now = service.accounts[name], service.clock()
    allowed, plan, breaker = (
        budget_of(wired.settings, wired.provider),
        poll_plans.plans(unit).get(name),
        rate_limits.breaker(unit, name),
    )
    return {
        "account": name,
        "provider": wired.provider.name,
        "budget": None if allowed is None else {"requests": allowed.requests, "seconds": allowed.seconds},
        **_plan(plan),
        "breaker": "closed" if breaker.broken_at is None else "open",
        "broken_at": breaker.broken_at,
        "probe_at": breaker.probe_at if breaker.broken_at is not None else None,
        "paused_for_seconds": rate_limits.pause_left(unit, name, now).total_seconds(),
        "asks_now": _asks(wired, breaker, rate_limits.pause_left(unit, name, now), now),
        "alarms": sorted(webhook_health.standing(unit).get(name, {})),
    }


def _plan(plan: PollPlan | None) -> dict[str, Any]:
    if plan is None:
        return dict.fromkeys(("planned_at", "watched", "wanted_per_second", "price_seconds", "stretch")) | {
            "is_budget_short": False
        }
    return {
        "planned_at": plan.planned_at,
        "watched": plan.watched,
        "wanted_per_second": plan.wanted_per_second,
        "price_seconds": plan.price_seconds,
        "stretch": plan.stretch,
        "is_budget_short": is_budget_short(plan),
    }


def _asks(account: WiredAccount, breaker: Breaker, pause: timedelta, now: datetime) -> str:
    if not account.asked_kinds:
        return "no: it cannot be asked"
    if breaker.broken_at is not None:
        wait = breaker.probe_at - now if breaker.probe_at is not None and breaker.probe_at > now else timedelta(0)
        return f"no: away, tried again in {wait.total_seconds():.0f} s"
    return f"no: paused for {pause.total_seconds():.0f} s" if pause else "yes"


def _row(account: dict[str, Any]) -> tuple[Any, ...]:
    allowed, wanted, price = account["budget"], account["wanted_per_second"], account["price_seconds"]
    return (
        account["account"],
        account["provider"],
        "no known limit" if allowed is None else f"{allowed['requests']} in {allowed['seconds']:g} s",
        account["watched"],
        None if wanted is None else f"{wanted * 60:.1f} a minute",
        None if price is None else f"{price:.3g} s",
        account["asks_now"],
        account["planned_at"] or "not yet",
        ", ".join(account["alarms"]) or None,
    )
