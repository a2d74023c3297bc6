"""Lists of records: options, filters, pages, and the lookup by part of an id."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from receipted.cli import output
from receipted.cli.exits import InvalidInput
from receipted.cli.options import parse_instant
from receipted.cli.output import counting
from receipted.wiring import Service
from storage import search
from storage.database import Unit, build_record
from storage.errors import NotFound
from storage.ids import WEBHOOK_PREFIX
from storage.private_files import written
from storage.search import PageCursor, RowFilter, TableSpec
from storage.tables import InboxMessage, OperatorAction, OutboxMessage, Payment, RejectedDelivery
from storage.tables_support import ApiKey, AuditRun, ConsoleSession, Reconciliation

_MIN_ID_CHARS: Final = 8
_ID_DIGITS: Final = 32  #: hexadecimal digits of a UUID
_MAX_CANDIDATES: Final = 10
_DIGITS: Final = re.compile(r"[0-9a-f]+", re.ASCII)
_NAMES: Final[dict[type[search.Found], str]] = {
    Payment: "payment",
    InboxMessage: "inbox message",
    OutboxMessage: "outbox message",
    RejectedDelivery: "rejected delivery",
    Reconciliation: "reconciliation",
    ApiKey: "API key",
    ConsoleSession: "session",
    OperatorAction: "action",
    AuditRun: "audit run",
}
Record = TypeVar("Record", Payment, InboxMessage, OutboxMessage, RejectedDelivery, OperatorAction, Reconciliation)
Oldest = Annotated[bool, typer.Option("--oldest", help="The oldest first.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="From when on: 2d, 2026-11-01.", show_default=False)
]
Before = Annotated[
    str | None, typer.Option("--before", metavar="WHEN", help="Before when: 2d, 2026-11-01.", show_default=False)
]
Search = Annotated[
    str | None,
    typer.Option(
        "--search",
        metavar="WORD",
        help="What names it, whole: an id, the provider's name or key for it, or your reference.",
        show_default=False,
    ),
]
OfPayment = Annotated[
    str | None, typer.Option("--payment", metavar="ID", help="Only about this payment.", show_default=False)
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets, and nothing else, on stdout.")]
Target = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Write the exact bytes here: personal data.", show_default=False),
]

#: Wider than any list's pages: what one statement brings.
_PAGE_ROWS: Final = 500

#: Less than the id of any row.
FIRST: Final = "00000000-0000-0000-0000-000000000000"


def find_id(unit: Unit, model: type[search.Found], text: str) -> str:
    """Return the whole id of the one record that the text is, begins or ends.

    Dashes do not count. Raises InvalidInput for what cannot be part of an id, is too short or fits several, and
    NotFound. Ids that were made together begin alike, so an end tells more than a beginning.
    """
    name = _NAMES[model]
    part = text.strip().lower().removeprefix(WEBHOOK_PREFIX).replace("-", "")
    if not _DIGITS.fullmatch(part) or len(part) > _ID_DIGITS:
        raise InvalidInput(f"{text!r} is no id of a {name}", param="id")
    if len(part) < _MIN_ID_CHARS:
        raise InvalidInput(f"{text!r} is too short: give at least {_MIN_ID_CHARS} characters of the id", param="id")
    found = search.ids_with(unit, model, part, limit=_MAX_CANDIDATES + 1)
    if not found:
        raise NotFound(f"no {name} {text}", param="id")
    if len(found) > 1:
        candidates = ", ".join(found[:_MAX_CANDIDATES]) + (", ..." if len(found) > _MAX_CANDIDATES else "")
        raise InvalidInput(f"{text!r} fits more than one {name}: {candidates}", param="id", code="ambiguous_id")
    return found[0]


def with_all_columns(shelf: TableSpec) -> TableSpec:
    """Return the same rows with all of their columns."""
    return replace(shelf, without=frozenset(), sized=None)


def time_range(service: Service, since: str | None, before: str | None) -> tuple[datetime | None, datetime | None]:
    """Parse both ends of a time range; raises InvalidInput."""
    now = service.clock()
    return (
        None if since is None else parse_instant(since, now, option="since"),
        None if before is None else parse_instant(before, now, option="before"),
    )


def find_payment_id(service: Service, part: str | None) -> str | None:
    """Return the whole id of the payment; raises InvalidInput and NotFound."""
    if part is None:
        return None
    with service.database.read() as unit:
        return find_id(unit, Payment, part)


def search_ids(service: Service, find_ids: Callable[[Unit, str], list[str]], words: str | None) -> list[str] | None:
    """Return the ids of the rows that a search finds; None without a search."""
    if words is None:
        return None
    with service.database.read() as unit:
        return find_ids(unit, words)


def print_machine_form(rows: Sequence[Mapping[str, Any]], limit: int, *, as_json: bool, as_csv: bool) -> bool:
    """Print JSON or CSV if wanted; return True if so. Raises InvalidInput for both."""
    if as_json and as_csv:
        raise InvalidInput("give either --json or --csv", param="csv")
    if as_json:
        output.as_json(rows)
    elif as_csv:
        output.as_csv(rows)
        if len(rows) == limit:
            output.note(f"there may be more: the same with --after {rows[-1]['id']}")
    return as_json or as_csv


def write_body(target: Path, body: bytes) -> None:
    """Write the bytes to a file that only its owner may read."""
    with written(target) as file:
        file.write(body)
    output.note(f"{len(body)} bytes are in {target}")


def decode_body(body: bytes) -> str:
    """Decode the body as text; bytes that are no text become escapes."""
    return body.decode("utf-8", "backslashreplace")


def print_headers(headers: Iterable[Sequence[str]]) -> None:
    """Print each header on a line, with an empty line before and after all."""
    output.say("")
    for name, value in headers:
        output.say(f"{output.shown(name)}: {output.shown(value)}")
    output.say("")


def filters(
    equal: Mapping[str, Any],
    within: tuple[datetime | None, datetime | None] = (None, None),
    *,
    present: Mapping[str, bool] | None = None,
    ids: list[str] | None = None,
) -> RowFilter:
    """Build the filter of rows by equal values; None means no filter."""
    given = {name: str(value) for name, value in equal.items() if value is not None}
    return RowFilter(given, present or {}, *within, ids)


def find_rows(
    service: Service,
    model: type[Record],
    shelf: TableSpec,
    what: RowFilter,
    *,
    after: str | None,
    limit: int,
    is_newest: bool,
) -> list[Record]:
    """Return up to `limit` whole rows after the id `after`, or from the start.

    However many rows have to be read for that, no statement takes long, and none blocks another process. Raises
    InvalidInput and NotFound for `after`.
    """
    rows = with_all_columns(shelf)
    found: list[Record] = []
    place = None
    if after is not None:
        with service.database.read() as unit:
            place = find_id(unit, model, after)
    with counting() as progress:
        task = None
        while len(found) < limit:
            with service.database.read() as unit:
                at = PageCursor(min(limit - len(found), _PAGE_ROWS), place, is_ascending=not is_newest)
                page = search.page(unit, rows, what, at)
            found += (build_record(model, line) for line in page.rows)
            place = page.after
            if place is None:
                break
            if page.is_broken_off:
                task = progress.add_task("Looking through", total=None) if task is None else task
                progress.advance(task, search.SCAN_LIMIT)
    return found
