"""`receipted push-quality`: quality of the providers' webhooks, and their alarms."""

from datetime import timedelta
from typing import Annotated, Any

import typer

from poller.alarms import format_duration
from receipted.cli import output
from receipted.cli.options import AsJson, open_service, parse_instant, require_account
from storage import webhook_health
from storage.webhook_health import AccountFigures, EventFigures, Pushing

_ACCOUNTS = ("Account", "Last delivery", "Measured", "Deliveries", "Rejected", "Provider's clock")
#: Of one event of an account.
EVENTS = (
    *("Account", "Kind", "Event", "Changes", "Pushed", "Late", "Lost", "Loss", "Lag p50", "Lag p99"),
    *("Deliveries", "Duplicates", "Out of order"),
)


def push_quality(
    context: typer.Context,
    account: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="Only this account.", show_default=False)
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help="From when: 7d, 2026-11-01; whole days, UTC.")
    ] = "7d",
    json: AsJson = False,
) -> None:
    """Show the quality of each provider's webhooks: pushed, late and lost changes.

    A change counts as pushed when a webhook reported it first, late when a poll found it and the webhook came after
    that, and lost when none came in time.

    Changes of the last minutes are not judged yet.
    """
    with open_service(context) as service:
        require_account(service, account)
        now = service.clock()
        start = parse_instant(since, now, option="since").date()
        with service.database.read() as unit:
            found = webhook_health.figures(unit, account, start, now.date())
    if json:
        output.as_json([as_data(figures) for figures in found])
        return
    if not found:
        output.say("nothing was measured yet: that happens while receipted serve or receipted worker runs")
        return
    _alarms(found)
    output.say("")
    output.table(_ACCOUNTS, (_account_row(figures) for figures in found))
    output.say("")
    events = [(figures.account, event) for figures in found for event in figures.events]
    if events:
        output.table(EVENTS, (event_row(name, event) for name, event in events))
    else:
        output.say("no delivery was measured since then; what came in the last minutes has to settle first")


def _alarms(found: list[AccountFigures]) -> None:
    standing = [(figures.account, name, alarm) for figures in found for name, alarm in figures.alarms.items()]
    for account, name, alarm in standing:
        output.say(output.shown(f"ALARM {account}: {name} since {alarm['since'][:19]}Z: {alarm['reason']}"))
    if not standing:
        output.say("no alarm stands")


def _account_row(figures: AccountFigures) -> tuple[Any, ...]:
    return (
        figures.account,
        figures.heard_at or "never",
        figures.measured_at,
        figures.deliveries,
        figures.rejected,
        _clock(figures.skew),
    )


def event_row(account: str, event: EventFigures) -> tuple[Any, ...]:
    """Return the row of one event, in the order of EVENTS."""
    loss = {Pushing.NO: "not pushed", Pushing.UNKNOWN: "no push yet"}.get(event.pushing)
    if loss is None and event.loss is not None:
        loss = f"{event.loss:.1%}"
    return (
        *(account, event.kind or "-", event.event or "(tells no state)", event.changes, event.pushed, event.late),
        *(event.lost, loss, _lag(event.lag_p50), _lag(event.lag_p99)),
        *(event.deliveries, event.duplicates, event.reordered),
    )


def _lag(lag: timedelta | None) -> str | None:
    if lag is None:
        return None
    sign, size = ("-", -lag) if lag < timedelta(0) else ("", lag)
    return f"{sign}{size.total_seconds():.2g} s" if size < timedelta(seconds=10) else f"{sign}{format_duration(size)}"


def _clock(skew: timedelta | None) -> str | None:
    if skew is None:
        return None
    if abs(skew) < timedelta(seconds=1.5):
        return "agrees with ours"
    return f"{format_duration(abs(skew))} {'ahead' if skew > timedelta(0) else 'behind'}"


def as_data(figures: AccountFigures) -> dict[str, Any]:
    """Return the figures as JSON values."""
    return {
        "account": figures.account,
        "measured_at": figures.measured_at,
        "heard_at": figures.heard_at,
        "deliveries": figures.deliveries,
        "rejected": figures.rejected,
        "skew_seconds": _seconds(figures.skew),
        "alarms": dict(figures.alarms),
        "events": [
            {
                "kind": event.kind,
                "event": event.event,
                "pushing": event.pushing,
                "changes": event.changes,
                "pushed": event.pushed,
                "late": event.late,
                "lost": event.lost,
                "loss": event.loss,
                "lag_p50_seconds": _seconds(event.lag_p50),
                "lag_p99_seconds": _seconds(event.lag_p99),
                "deliveries": event.deliveries,
                "duplicates": event.duplicates,
                "reordered": event.reordered,
            }
            for event in figures.events
        ],
    }


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 3)
