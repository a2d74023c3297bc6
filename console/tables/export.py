"""Export of a table as CSV, streamed in batches, each in a snapshot of its own."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import StreamingResponse

from console.access import Person
from console.errors import ExportBrokenOff
from console.tables.base import ConsoleTable
from console.tables.query_params import ListQuery, parse
from service import csv_text
from service.permissions import COLUMNS, Permission
from storage import console_sessions
from storage.columns import table_of
from storage.database import Unit
from storage.search import Line, PageCursor, RowPage

#: Rows of one export; more take several ranges of time, or `receipted audit export`.
MAX_ROWS: Final = 100_000

#: Rows that are read in one snapshot.
_BATCH_SIZE: Final = 1_000


def exported(table: ConsoleTable, request: Request) -> StreamingResponse:
    """Stream the rows of the query, the newest first; raises InvalidForm before that."""
    query = parse(request.query_params, table.filters)
    person: Person = request.state.person
    columns = [column.name for column in table_of(table.shelf.model).c if column.name not in table.shelf.without]
    names = [name for name in columns if COLUMNS.get(name, Permission.READ) in person.permissions]
    if table.shelf.sized is not None:
        names.append("size_bytes")
    name = f"receipted-{table.key}-{table.deps.clock():%Y%m%dT%H%M%SZ}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_written(table, query, names, person), media_type=csv_text.MEDIA_TYPE, headers=headers)


async def _written(table: ConsoleTable, query: ListQuery, names: Sequence[str], person: Person) -> AsyncIterator[bytes]:
    """Yield the rows as CSV; raises ExportBrokenOff instead of ending too early."""
    yield csv_text.encoded([names])
    left, after = MAX_ROWS, query.after
    deps, session = table.deps, person.session_id
    while left > 0:
        place = PageCursor(min(_BATCH_SIZE, left), after)

        def read(unit: Unit, place: PageCursor = place) -> RowPage[Line] | None:
            is_open = console_sessions.open_among(unit, [session], deps.clock(), deps.limits.idle_timeout)
            return table.lines(unit, query, place) if is_open else None

        found = await deps.read(read)
        if found is None or deps.stopping.is_set():
            raise ExportBrokenOff
        if found.rows:
            yield csv_text.encoded([line[name] for name in names] for line in found.rows)
        left, after = left - len(found.rows), found.after
        if after is None:
            return
