"""`receipted audit`: verify the history, export it, and list heads and runs."""

import json as json_module
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from audit.export import export as exported
from audit.verify import AuditReport
from receipted.cli import lists, output
from receipted.cli.exits import Exit, example
from receipted.cli.lists import find_id
from receipted.cli.options import After, AsJson, Limit, format_seconds, open_service, require_account, subcommands
from receipted.cli.output import bar
from receipted.wiring import Service
from storage import audits, inbox, outbox, payments
from storage import search as storage_search
from storage.errors import StorageUnavailable
from storage.ids import new_id
from storage.private_files import written
from storage.tables import Payment
from storage.tables_support import AuditRun

app = subcommands("Prove the history from what is stored, and export it for others to check.")
_HEADS = ("ID", "Account", "State", "Transitions", "Last", "Hash")
_RUNS = ("ID", "Began", "Ended", "Took", "Messages", "Payments", "Wrong rows")

#: Of a payment, what its head is.
_HEAD_FIELDS = ("id", "account", "state", "version", "changed_at", "head_hash")


@app.command(epilog=example("receipted audit heads --limit 5", "receipted audit heads --since 1d --json"))
def heads(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's payments.")] = None,
    search: lists.Search = None,
    since: lists.Since = None,
    before: lists.Before = None,
    oldest: lists.Oldest = False,
    limit: Limit = 50,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """List the hash of each payment's last transition, the newest payment first.

    A hash covers the whole history before it: kept elsewhere, it proves later that nothing was changed.
    """
    with open_service(context) as service:
        ids = lists.search_ids(service, storage_search.payment_ids, search)
        what = lists.filters({"account": account}, lists.time_range(service, since, before), ids=ids)
        found = lists.find_rows(
            service, Payment, storage_search.HEADS, what, after=after, limit=limit, is_newest=not oldest
        )
        if not found:
            require_account(service, account)
    data = [{name: getattr(payment, name) for name in _HEAD_FIELDS} for payment in found]
    if lists.print_machine_form(data, limit, as_json=json, as_csv=csv):
        return
    output.table(
        _HEADS,
        ((output.short(payment.id), *(getattr(payment, name) for name in _HEAD_FIELDS[1:])) for payment in found),
    )
    output.print_more_hint(found, limit)


@app.command(epilog=example("receipted audit runs"))
def runs(context: typer.Context, limit: Limit = 20, after: After = None, json: AsJson = False) -> None:
    """List complete audits, the newest first.

    Faults that an audit finds are printed when it runs.
    """
    with open_service(context) as service, service.database.read() as unit:
        found = audits.find(unit, after=find_id(unit, AuditRun, after) if after else None, limit=limit)
    if json:
        output.as_json([output.columns_of(run) for run in found])
        return
    if not found and after is None:
        output.say("nothing was proved yet: receipted audit verify does it")
        return
    output.table(
        _RUNS,
        (
            (
                *(output.short(run.id), run.began_at, run.ended_at),
                format_seconds((run.ended_at - run.began_at).total_seconds()),
                *(run.messages, run.payments, run.faults),
            )
            for run in found
        ),
    )
    output.print_more_hint(found, limit)


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
    """Verify seals, signatures and chains, and decide all messages again.

    Exit code 4 says that a row is wrong. The proof of one payment cannot see a removal that only other payments' rows
    would show.
    """
    with open_service(context) as service:
        began_at = service.clock()
        if payment is not None:
            with service.database.read() as unit:
                payment_id = find_id(unit, Payment, payment)
            report = service.audit().of_payment(payment_id)
        else:
            report = _verified(service)
            _record_run(service, report, began_at)
    first = asdict(report.first) if report.first else None
    if json:
        output.as_json({"ok": first is None, "first": first, **asdict(report)})
    else:
        _print_report(report)
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
    """Export the history with digests and bytes as JSON lines; holds personal data.

    With --json, stdout has one JSON list instead, or what was written to FILE.
    """
    with open_service(context) as service:
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
                    output.write_bytes(f"{line}\n".encode())


def _lines(service: Service, payment_id: str | None) -> Generator[str]:
    yield from exported(service.database, payment_id)


def _to_file(lines: Iterator[str], target: Path, *, as_json: bool) -> None:
    """Write the file whole or not at all: it is written beside its target first."""
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


def _verified(service: Service) -> AuditReport:
    with bar() as progress:
        task = progress.add_task("Verifying", total=_rows(service))

        def on_progress(report: AuditReport) -> None:
            progress.update(task, completed=report.messages + report.payments + report.outbox)

        return service.audit(on_progress).run()


def _record_run(service: Service, report: AuditReport, began_at: datetime) -> None:
    """Record the audit for monitoring; a database that takes no writes is only noted."""
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


def _print_report(report: AuditReport) -> None:
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
