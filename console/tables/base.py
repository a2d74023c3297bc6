"""The base of every table: columns, rows in one snapshot, context of templates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar
from urllib.parse import urlencode

from console.access import Person
from console.deps import ConsoleDeps
from console.tables.query_params import PAGE_SIZE, PAGE_SIZES, FilterField, ListQuery
from service.permissions import COLUMNS, Permission, visible
from storage import search as storage_search
from storage.database import Unit
from storage.ids import is_id
from storage.search import Line, PageCursor, RowCount, RowPage, TableSpec


class CellFormat(StrEnum):
    """Format of a cell; templates/tables/cells.html has one branch for each."""

    TEXT = "text"
    ID = "id"
    ACCOUNT = "account"
    PHASE = "phase"
    STATUS = "status"
    BADGE = "badge"
    REVIEW = "review"
    MONEY = "money"  #: with the row's currency
    AGO = "ago"
    BYTES = "bytes"
    NUMBER = "number"
    HASH = "hash"
    PAYMENT = "payment"  #: the id of a payment, linked to its page
    SUBJECT = "subject"  #: the id of what an action was about, linked where the action tells its page
    LONG = "long"  #: text, cut where it is too long for a row


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table."""

    name: str
    label: str
    format: CellFormat = CellFormat.TEXT
    is_head: bool = False  #: it links to the row's own page; a table has one such column


@dataclass(frozen=True, slots=True)
class TablePage:
    """One page of a table: the query, the rows that match it, and their number."""

    query: ListQuery
    found: RowPage[Line]
    counted: RowCount


@dataclass(frozen=True, slots=True)
class BulkAction:
    """An action on several rows at once: a POST with their ids and a reason."""

    url: str
    label: str
    applies_to: Callable[[Line], bool]  #: whether the row offers it


class ConsoleTable:
    """One table of the console: its columns, filters and search. It only reads."""

    key: ClassVar[str]  #: its name in the address
    title: ClassVar[str]
    about: ClassVar[str] = ""  #: one sentence below the heading
    columns: ClassVar[Sequence[TableColumn]]
    shelf: ClassVar[TableSpec]
    detail_template: ClassVar[str] = ""  #: of a row's own page; empty where rows have none here
    search_hint: ClassVar[str] = "A whole id"  #: placeholder of the search
    nothing_found: ClassVar[str] = "was looked for as a whole id or name, and not as a part of one."  #: after the words

    def __init__(self, deps: ConsoleDeps) -> None:
        self.deps = deps
        self.filters: Sequence[FilterField] = self.filter_fields(deps)

    def filter_fields(self, deps: ConsoleDeps) -> Sequence[FilterField]:
        """Return the filters of the form, in its order."""
        return [FilterField("account", "Account", tuple(deps.accounts), is_open=True)]

    def link(self, line: Line) -> str | None:
        """Return the address of the row's own page, if it has one."""
        return f"/console/tables/{self.key}/detail?pk={line['id']}" if self.detail_template else None

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """Return the ids of the rows that the words name: here, of a whole id only."""
        return storage_search.whole_id(words)

    async def named(self, words: str) -> Sequence[str]:
        """Return the ids of the first rows that the words name, at most three."""

        def read(unit: Unit) -> list[str]:
            return [each for each in self.search(unit, words)[:3] if self.row(unit, each) is not None]

        return await self.deps.read(read)

    def bulk_action(self) -> BulkAction | None:
        """Return the action that operators may take on several rows at once."""
        return None

    def row(self, unit: Unit, row_id: str) -> Line | None:
        """Read one row with all of its columns."""
        return storage_search.one(unit, self.shelf, row_id)

    def lines(self, unit: Unit, query: ListQuery, place: PageCursor) -> RowPage[Line]:
        """Read the rows of one page."""
        return storage_search.page(unit, self.shelf, self._wanted(unit, query), place)

    async def page(self, query: ListQuery) -> TablePage:
        """Read and count, in one snapshot, the rows that the query asks for."""
        return await self.deps.read(lambda unit: self._page(unit, query))

    async def find(self, row_id: str, person: Person) -> Line | None:
        """Read one row with the columns that the person may see; None without a page."""
        if not self.detail_template or not is_id(row_id):
            return None
        line = await self.deps.read(lambda unit: self.row(unit, row_id))
        return None if line is None else visible(line, person.permissions)

    def context(self, page: TablePage, person: Person) -> Mapping[str, Any]:
        """Return the context of the list's template, as far as the person may see it."""
        query, after = page.query, page.found.after
        columns = [each for each in self.columns if COLUMNS.get(each.name, Permission.READ) in person.permissions]
        return {
            "table": self,
            "query": query,
            "found": page.found,
            "counted": page.counted,
            "lines": [visible(line, person.permissions) for line in page.found.rows],
            "columns": columns,
            "sizes": sorted(PAGE_SIZES),
            "bulk": self.bulk_action() if person.may(Permission.OPERATE) else None,
            "next_page": self._address(query, after=after) if after else None,
            "first_page": self._address(query) if query.after else None,
            "reversed_page": self._address(query, is_ascending=not query.is_ascending),
            "export": f"/console/tables/{self.key}/export?{_encoded(query)}",
            "here_again": self._address(query, after=query.after),
        }

    def _page(self, unit: Unit, query: ListQuery) -> TablePage:
        wanted = self._wanted(unit, query)
        found = storage_search.page(unit, self.shelf, wanted, query.place())
        return TablePage(query, found, storage_search.count(unit, self.shelf, wanted))

    def _wanted(self, unit: Unit, query: ListQuery) -> storage_search.RowFilter:
        """Return the filters, narrowed to the ids that the search finds."""
        if not query.q:
            return query.wanted
        wanted = query.wanted
        ids = list(self.search(unit, query.q))
        return storage_search.RowFilter(wanted.equal, wanted.present, wanted.since, wanted.until, ids)

    def _address(self, query: ListQuery, *, after: str | None = None, is_ascending: bool | None = None) -> str:
        """Return the address of the list with the same filters, from a row on."""
        more = {"after": after} if after else {}
        if query.is_ascending if is_ascending is None else is_ascending:
            more["sort"] = "id__asc"
        if query.page_size != PAGE_SIZE:
            more["page_size"] = str(query.page_size)
        encoded = _encoded(query, more)
        return f"/console/tables/{self.key}/list{'?' if encoded else ''}{encoded}"


def _encoded(query: ListQuery, more: Mapping[str, str] | None = None) -> str:
    """Encode search and filters, and more parameters, as the query of an address."""
    return urlencode({**({"q": query.q} if query.q else {}), **query.given, **(more or {})})
