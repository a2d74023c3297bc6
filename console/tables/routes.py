"""Routes of the tables: lists, pages of single rows, exports, bulk actions."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from console import raw_content
from console.deps import ConsoleDeps
from console.pages import PageRenderer
from console.tables.base import ConsoleTable
from console.tables.bulk_actions import bulk_routes
from console.tables.definitions import (
    ActionsTable,
    AuditHeadsTable,
    InboxTable,
    OutboxTable,
    PaymentsTable,
    QuarantineTable,
    ReconciliationsTable,
    is_dead,
    is_replayable,
)
from console.tables.export import MAX_ROWS, exported
from console.tables.query_params import parse
from service.text import shown
from storage.errors import NotFound

PATH: Final = "/console/tables"


def routes(deps: ConsoleDeps, pages: PageRenderer) -> list[BaseRoute]:
    """Return every route under /console/tables."""
    served = TablePages(tables(deps), pages)
    return [
        Route("/console/find", served.find, methods=["GET"]),
        Route(f"{PATH}/", _to_first, methods=["GET"]),
        Route(f"{PATH}/{{key}}/list", served.list, methods=["GET"]),
        Route(f"{PATH}/{{key}}/detail", served.detail, methods=["GET"]),
        Route(f"{PATH}/{{key}}/export", served.export, methods=["GET"]),
        *(Route(PATH + path, do, methods=["POST"]) for path, do in bulk_routes(deps, pages)),
    ]


def tables(deps: ConsoleDeps) -> Sequence[ConsoleTable]:
    """Return every table of the console."""
    kinds = (
        PaymentsTable,
        InboxTable,
        OutboxTable,
        QuarantineTable,
        ReconciliationsTable,
        ActionsTable,
        AuditHeadsTable,
    )
    return [kind(deps) for kind in kinds]


async def _to_first(_request: Request) -> Response:
    return RedirectResponse(f"{PATH}/payments/list", 303)


class TablePages:
    """Serves the lists, rows and exports of the tables, in the console's own frame."""

    def __init__(self, tables: Sequence[ConsoleTable], pages: PageRenderer) -> None:
        self._tables = {table.key: table for table in tables}
        self._pages = pages

    async def list(self, request: Request) -> Response:
        """Serve one page of a table; raises InvalidForm for an unknown parameter."""
        table = self._table(request)
        if table is None:
            raise HTTPException(404)
        page = await table.page(parse(request.query_params, table.filters))
        context = table.context(page, request.state.person)
        return await self._pages.show(request, "tables/list.html", **context, plain=shown, max_rows=MAX_ROWS)

    async def find(self, request: Request) -> Response:
        """Redirect from the search of every page: to the one payment, or to a list."""
        query = parse(request.query_params, ())
        if not query.q:
            return await _to_first(request)
        for key in ("payments", "inbox", "outbox"):
            found = await self._tables[key].named(query.q)
            if key == "payments" and len(found) == 1:
                return RedirectResponse(f"/console/payments/{found[0]}", 303)
            if found:
                return RedirectResponse(f"{PATH}/{key}/list?{urlencode({'q': query.q})}", 303)
        return RedirectResponse(f"{PATH}/payments/list?{urlencode({'q': query.q})}", 303)

    async def detail(self, request: Request) -> Response:
        """Serve the page of one row, with the columns that the person may see."""
        table = self._table(request)
        row_id = request.query_params.get("pk", "")
        line = None if table is None else await table.find(row_id, request.state.person)
        if table is None or line is None:
            raise HTTPException(404)
        return await self._pages.show(
            request,
            table.detail_template,
            line=line,
            plain=shown,
            raw=raw_content.raw_bytes,
            headers=raw_content.masked_headers,
            is_replayable=is_replayable,
            is_dead=is_dead,
        )

    async def export(self, request: Request) -> Response:
        """Serve the rows of the query as CSV; raises NotFound or InvalidForm."""
        table = self._table(request)
        if table is None:
            raise NotFound("no such table", param="table")
        return exported(table, request)

    def _table(self, request: Request) -> ConsoleTable | None:
        return self._tables.get(request.path_params["key"])
