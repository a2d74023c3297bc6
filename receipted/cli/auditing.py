"""`receipted audit`: proves the history from what is kept, and exports it for others to check."""

import json as json_module
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from audit.export import export as exported
from audit.verify import Report
from receipted.cli import output
from receipted.cli.context import AsJson, opened, subcommands
from receipted.cli.exits import Exit, example
from receipted.cli.lookup import find_id
from receipted.cli.progress import bar
from receipted.wiring import Service
from storage import audits, inbox, outbox, payments
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.private_files import written
from storage.tables import Payment
from storage.tables_support import AuditRun

app = subcommands("Proves the history from what is kept, and exports it for others to check.")


@app.command(
    epilog=example("receipted audit verify", "receipted audit verify --json", "receipted audit verify --payment ID")
)
def verify(
    context: typer.Context,
    payment: Annotated[
        str | None, typer.Option("--payment", metavar="ID", help="Only this payment, and not everything.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Check every seal, signature and chain, and decide every kept message again; exit 4 where a row is wrong.

    The proof of one payment cannot see that something was removed which other payments' rows alone would show.
    """
    with opened(context) as service:
        began_at = service.clock()
        if payment is not None:
            with service.database.read() as unit:
                payment_id = find_id(unit, Payment, payment)
            report = service.audit().of_payment(payment_id)
        else:
            report = _verified(service)
            _keep(service, report, began_at)
    first = asdict(report.first) if report.first else None
    if json:
        output.as_json({"ok": first is None, "first": first, **asdict(report)})
    else:
        _tell(report)
    if first is not None:
        raise typer.Exit(Exit.AUDIT)


@app.command(epilog=example("receipted audit export --output history.jsonl"))
def export(
    context: typer.Context,
    payment: Annotated[str | None, typer.Option("--payment", metavar="ID", help="Only this payment's rows.")] = None,
    target: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write here instead of to stdout.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Export the history with its digests and bytes, one JSON object a line; it holds personal data.

    With --json, stdout has one JSON list instead, or what was written to FILE.
    """
    with opened(context) as service:
        payment_id = None
        if payment is not None:
            with service.database.read() as unit:
                payment_id = find_id(unit, Payment, payment)
        with closing(_lines(service, payment_id)) as lines:
            if target is not None:
                _to_file(lines, target, as_json=json)
            elif json:
                output.as_json([json_module.loads(line) for line in lines])
            else:
                for line in lines:
                    output.machine(f"{line}\n".encode())


def _lines(service: Service, payment_id: str | None) -> Generator[str]:
    yield from exported(service.database, payment_id)


def _to_file(lines: Iterator[str], target: Path, *, as_json: bool) -> None:
    """The file is whole or as it was: it is written beside its place first."""
    beside = target.with_name(f"{target.name}.part")
    count = 0
    with written(beside) as file:
        for line in lines:
            file.write(f"{line}\n".encode())
            count += 1
    beside.replace(target)
    if as_json:
        output.as_json({"output": target, "lines": count})
    else:
        output.say(f"{count} lines are in {target}")


def _verified(service: Service) -> Report:
    with bar() as progress:
        task = progress.add_task("Verifying", total=_rows(service))

        def on_progress(report: Report) -> None:
            progress.update(task, completed=report.messages + report.payments + report.outbox)

        return service.audit(on_progress).run()


def _keep(service: Service, report: Report, began_at: datetime) -> None:
    """Whoever watches sees that there was an audit; one of a copy that takes no writes is told all the same."""
    run = AuditRun(
        id=new_id(),
        began_at=began_at,
        ended_at=service.clock(),
        messages=report.messages,
        payments=report.payments,
        faults=len(report.faults),
    )
    try:
        with service.database.write() as unit:
            audits.note(unit, run)
    except StorageUnavailable as fault:
        output.note(f"note: that there was an audit could not be kept: {fault.message}")


def _rows(service: Service) -> int:
    with service.database.read() as unit:
        counts = (inbox.depth(unit), payments.count_by_phase(unit), outbox.depth(unit))
        return sum(sum(count.values()) for count in counts)


def _tell(report: Report) -> None:
    output.fields(
        {
            "messages": f"{report.messages} ({report.signatures} signatures verified again)",
            "statements": f"{report.read_again} read and decided again",
            "payments": f"{report.payments} ({report.transitions} transitions)",
            "owed effects": report.outbox,
        }
    )
    if report.unverifiable:
        output.say(f"{report.unverifiable} signatures cannot be verified again: their key is gone, and allowed by name")
    if report.not_readable:
        output.say(f"{report.not_readable} statements cannot be read again: their bytes or their account are gone")
    if unkeyed := report.seals.get("", 0):
        output.say(f"{unkeyed} rows are sealed without a key: who writes rows can seal them anew (service.audit_keys)")
    if report.retained:
        gone = ", ".join(f"{count} {name}" for name, count in sorted(report.retained.items()))
        output.say(f"{gone} are gone by a rule of retention, and on record: receipted retention")
    if report.first is None:
        output.say("everything holds")
        return
    output.say("")
    output.say(f"FAULT: the first row that is wrong is {report.first.table} {report.first.row}:")
    output.say(f"  {output.shown(report.first.problem)}")
    if len(report.faults) > 1:
        output.say(f"{len(report.faults)} faults in all; --json lists them")
