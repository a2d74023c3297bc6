"""`receipted retention`: what would go, what went, and running it at once."""

import time
from typing import Annotated, Any

import typer

from receipted.cli import output
from receipted.cli.options import AsJson, open_service
from receipted.cli.output import counting
from receipted.wiring import Service
from receipted.wiring import retention as retention_of
from storage import retention_runs
from storage.retention import Planned, rested
from storage.tables_support import RetentionRun
from storage.types import RetentionStatus

_PLAN = ("Rule", "Older than", "Until", "Partitions", "Last run", "Status", "Rows")
_RUNS = ("ID", "Rule", "Began", "Changed", "By", "Status", "Looked at", "Gone", "Partition", "Held back")

_LEFT_OUT = ("held_back", "seal", "claim_token")


def retention(
    context: typer.Context,
    run: Annotated[bool, typer.Option("--run", help="Run every rule now, and do not wait for the worker.")] = False,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who wants it; kept with the run.")] = "an operator",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many runs to show.")] = 20,
    json: AsJson = False,
) -> None:
    """Show what retention would delete and has deleted; with --run, run it now.

    Nothing goes unless a setting retention.*_after_days says so. Ctrl-C leaves it as it is, and the next run goes on.
    """
    with open_service(context) as service:
        if run:
            _run(service, by)
        plan = retention_of(service).plan()
        with service.database.read() as unit:
            runs = retention_runs.every(unit, limit=limit)
    if json:
        output.as_json({"plan": [_planned(each) for each in plan], "runs": [_shown(each) for each in runs]})
        return
    if not plan:
        output.say("nothing is thrown away: no setting retention.*_after_days is set")
    else:
        output.table(_PLAN, (_row(each) for each in plan))
    for each in plan:
        if not each.is_possible:
            output.say(f"{each.rule.value}: only PostgreSQL has partitions that can be let go of; nothing is done here")
    if runs:
        output.say("")
        output.table(_RUNS, (_run_row(each) for each in runs))


def _run(service: Service, by: str) -> None:
    wanted_at, retention = service.clock(), retention_of(service)
    with counting() as progress:
        tasks: dict[str, Any] = {}
        while True:
            began = time.monotonic()
            stepped = retention.step(asked_by=by, wanted_at=wanted_at)
            if stepped.run is None and stepped.pause.total_seconds() > 1:
                return
            if stepped.run is not None:
                done = stepped.run
                if done.id not in tasks:
                    tasks[done.id] = progress.add_task(done.partition or done.rule, total=None)
                progress.update(tasks[done.id], completed=done.seen)
            rest = rested(time.monotonic() - began, stepped.pause)
            time.sleep(rest)  # the rate limit of retention: intake and worker have the disk in between


def _planned(planned: Planned) -> dict[str, Any]:
    return {
        "rule": planned.rule,
        "after_days": planned.days,
        "until": planned.until,
        "is_possible": planned.is_possible,
        "partitions": planned.partitions,
        "last": None if planned.last is None else _shown(planned.last),
    }


def _shown(run: RetentionRun) -> dict[str, Any]:
    return output.columns_of(run, without=_LEFT_OUT) | {"held_back": len(run.held_back)}


def _row(planned: Planned) -> tuple[Any, ...]:
    last = planned.last
    run = (last.began_at, last.status, last.rows) if last is not None else ("never", None, None)
    return (planned.rule, f"{planned.days} days", planned.until, ", ".join(planned.partitions) or None, *run)


def _run_row(run: RetentionRun) -> tuple[Any, ...]:
    is_held = run.status == RetentionStatus.HELD
    held = f"{len(run.held_back)}{' and more' if is_held else ''}" if run.held_back else None
    return (
        output.short(run.id),
        run.rule,
        run.began_at,
        run.changed_at,
        run.asked_by,
        run.status,
        run.seen,
        run.rows,
        run.partition,
        held,
    )
