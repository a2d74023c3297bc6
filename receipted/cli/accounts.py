"""`receipted accounts`: how each provider account is asked now, and whether anything is in its way."""

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from poller.planner import is_short
from receipted.catalogue import budget_of
from receipted.cli import account, output
from receipted.cli.context import AsJson, known_account, opened
from receipted.cli.exits import InvalidInput
from receipted.wiring import Service
from storage import poll_plans, rate_limits, webhook_health
from storage.database import Unit
from storage.rate_limits import Breaker
from storage.tables_support import PollPlan

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
    """Show how each account is asked: its budget, how much it has to ask, and whether the provider is away.

    The price is the expected seconds of not knowing that one more question must save: the dearer, the fewer. Of one
    account its webhook URL, keys, quarantine, push of 30 days and last reconciliations are told too.
    """
    if settings and name is None:
        raise InvalidInput("--settings is about one account: name it", param="settings")
    with opened(context) as service:
        known_account(service, name)
        with service.database.read() as unit:
            found = [_account(service, unit, each) for each in service.accounts if name in (None, each)]
        if name is not None:
            account.tell(service, name, found[0], settings=settings, as_json=json)
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
        budget_of(wired.settings),
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
        "asks_now": _asks(breaker, rate_limits.pause_left(unit, name, now), now),
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
        "is_budget_short": is_short(plan),
    }


def _asks(breaker: Breaker, pause: timedelta, now: datetime) -> str:
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
