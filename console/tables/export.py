"""A table as CSV: streamed page by page, each in a short snapshot of its own, and bounded."""

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette_admin.export import ExportConfig
from starlette_admin.export.helpers import escape_formula

from console.tables.asked import Asked, read
from console.tables.view import Table
from storage.columns import table_of
from storage.sifting import Line, Place

#: Rows of one export; whoever needs more asks for a range of time after the other, or uses `receipted audit export`.
LIMITS: Final = ExportConfig(max_rows=100_000)

_AT_ONCE: Final = 1_000


def exported(table: Table, request: Request) -> StreamingResponse:
    """The rows that the address asks for, the newest first; raises InvalidForm before anything is sent."""
    asked = read(request.query_params, table.choices)
    names = [column.name for column in table_of(table.shelf.model).c if column.name not in table.shelf.without]
    if table.shelf.sized is not None:
        names.append("size_bytes")
    name = f"receipted-{table.key}-{table.parts.clock():%Y%m%dT%H%M%SZ}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_written(table, asked, names), media_type="text/csv; charset=utf-8", headers=headers)


async def _written(table: Table, asked: Asked, names: Sequence[str]) -> AsyncIterator[bytes]:
    yield _csv([names])
    left, after = LIMITS.max_rows or 0, asked.after
    while left > 0 and not table.parts.stopping.is_set():
        place = Place(min(_AT_ONCE, left), after)
        found = await table.parts.read(lambda unit: table.lines(unit, asked, place))  # noqa: B023 - done within the turn
        if found.lines:
            yield _csv([[_cell(line, name) for name in names] for line in found.lines])
        left, after = left - len(found.lines), found.after
        if after is None:
            return


def _cell(line: Line, name: str) -> Any:
    value = line[name]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # What a spreadsheet would take for a formula, in the texts that others have sent.
    return escape_formula(value) if isinstance(value, str) else value


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
