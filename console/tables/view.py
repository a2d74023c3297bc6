"""What every table has in common: rows from storage in one snapshot, and nothing that could change one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast
from urllib.parse import urlencode

from starlette.requests import Request
from starlette_admin import BaseModelView
from starlette_admin.types import ListParams

from console.errors import TableIsReadOnly
from console.parts import Parts
from console.person import Person
from console.tables.asked import Asked, Choice, read
from console.tables.cells import Cell
from service.permissions import COLUMNS, Permission, visible
from storage import search as storage_search
from storage import sifting
from storage.database import Unit
from storage.ids import is_id
from storage.sifting import Counted, Line, Place, Shelf, Sifted

#: Rows of one page.
SIZES: Final = (50, 100, 25)


@dataclass(frozen=True, slots=True)
class Tabled:
    """One page of a table: what was asked for, and what there is."""

    asked: Asked
    found: Sifted
    counted: Counted
    is_ascending: bool


@dataclass(frozen=True, slots=True)
class Many:
    """What may be done about several rows at once: a POST with their ids and a reason."""

    url: str
    label: str
    may: Callable[[Line], bool]  #: whether it may be done about the row


class Table(BaseModelView):
    """One table. Everything that starlette-admin would let people change is off; they act by forms of the console."""

    pk_attr = "id"
    list_template = "tables/list.html"
    page_size = SIZES[0]
    page_size_options = SIZES
    fields_default_sort = (("id", True),)
    sortable_fields = ("id",)
    searchable_fields = ()
    exporters = ()
    importers = ()
    actions = ()
    row_actions = ()

    shelf: ClassVar[Shelf]
    about: ClassVar[str] = ""  #: one sentence below the heading
    hint: ClassVar[str] = "A whole id"  #: what a search takes
    has_time: ClassVar[bool] = True  #: rows can be asked for by when they came
    when: ClassVar[str] = "received"

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.choices: Sequence[Choice] = self.filters(parts)
        super().__init__()

    def filters(self, parts: Parts) -> Sequence[Choice]:
        """By what people narrow it."""
        return [Choice("account", "Account", tuple(parts.accounts), is_open=True)]

    def link(self, line: Line) -> str | None:
        """The row's own page."""
        return f"/console/tables/{self.key}/detail?pk={line['id']}" if self.detail_template else None

    def search(self, unit: Unit, words: str) -> Sequence[str]:
        """The ids of the rows that these words name; a whole id, where nothing else names one."""
        return storage_search.whole_id(words)

    def many(self) -> Many | None:
        """What an operator may do about several rows at once."""
        return None

    # -- what starlette-admin asks for ----------------------------------------------------------------------------

    def is_accessible(self, request: Request) -> bool:
        """Whoever is logged in may read."""
        return request.state.person is not None

    def can_view_detail(self, request: Request) -> bool:
        """Whoever may read the table."""
        return self.is_accessible(request)

    def can_create(self, request: Request) -> bool:
        """Nobody: rows are made by what happens."""
        return False

    can_edit = can_delete = can_import = can_create

    async def find_all(
        self,
        request: Request,
        skip: int = 0,
        limit: int = 100,
        q: str | None = None,
        sorts: Sequence[tuple[str, str]] | None = None,
        filters: Any = None,
    ) -> Sequence[Line]:
        """The page that the address asks for; pages go on after a row, so that `skip` means nothing here."""
        is_ascending = list(sorts or ()) == [("id", "asc")]
        asked = read(request.query_params, self.choices)
        request.state.tabled = await self.parts.read(
            lambda unit: self._tabled(unit, asked, limit, is_ascending=is_ascending)
        )
        person: Person = request.state.person
        lines = cast("Tabled", request.state.tabled).found.lines
        return [visible(line, person.permissions) for line in lines]

    async def count(self, request: Request, q: str | None = None, filters: Any = None) -> int:
        """As far as it was counted along with the page."""
        return cast("Tabled", request.state.tabled).counted.number

    async def find_by_pk(self, request: Request, pk: Any) -> Line | None:
        """The row with everything that is kept of it."""
        if not self.detail_template or not is_id(str(pk)):
            return None
        person: Person = request.state.person
        line = await self.parts.read(lambda unit: self.row(unit, str(pk)))
        return None if line is None else visible(line, person.permissions)

    async def find_by_pks(self, request: Request, pks: list[Any]) -> Sequence[Line]:
        """Those of the rows that there are."""
        found = [await self.find_by_pk(request, pk) for pk in pks]
        return [line for line in found if line is not None]

    async def serialize(
        self, obj: Line, request: Request, include_relationships: bool = True, include_select2: bool = False
    ) -> dict[str, Any]:
        """The row's columns as they are: the templates show them."""
        return dict(obj)

    async def get_pk_value(self, request: Request, obj: Line) -> Any:
        """The row's id."""
        return obj["id"]

    async def create(self, request: Request, data: dict[str, Any]) -> Any:
        """Nobody may: raises TableIsReadOnly."""
        raise TableIsReadOnly

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> Any:
        """Nobody may: raises TableIsReadOnly."""
        raise TableIsReadOnly

    async def delete(self, request: Request, pks: list[Any]) -> int | None:
        """Nobody may: raises TableIsReadOnly."""
        raise TableIsReadOnly

    # -- what the pages show --------------------------------------------------------------------------------------

    def row(self, unit: Unit, row_id: str) -> Line | None:
        """One row with all of its columns."""
        return sifting.one(unit, self.shelf, row_id)

    def sought(self, unit: Unit, asked: Asked) -> sifting.Wanted:
        """What is wanted, after what is searched for was found."""
        if not asked.q:
            return asked.wanted
        wanted = asked.wanted
        ids = list(self.search(unit, asked.q))
        return sifting.Wanted(wanted.equal, wanted.present, wanted.since, wanted.until, ids)

    def lines(self, unit: Unit, asked: Asked, place: Place) -> Sifted:
        """One page of rows."""
        return sifting.page(unit, self.shelf, self.sought(unit, asked), place)

    def shown(self, request: Request, params: ListParams) -> Mapping[str, Any]:
        """What the list's template shows beside the rows."""
        tabled: Tabled = request.state.tabled
        head = next((field for field in self.fields if isinstance(field, Cell) and field.is_head), None)
        person: Person = request.state.person
        fields = [field for field in self.fields if COLUMNS.get(field.name, Permission.READ) in person.permissions]
        many = self.many() if person.may(Permission.OPERATE) else None
        return {
            "table": self,
            "tabled": tabled,
            "head": head.name if head else None,
            "size": params.page_size,
            "sizes": sorted(SIZES),
            "older": self._address(tabled, params, after=tabled.found.after) if tabled.found.after else None,
            "first": self._address(tabled, params) if tabled.asked.after else None,
            "turned": self._address(tabled, params, is_ascending=not tabled.is_ascending),
            "exported": f"/console/tables/{self.key}/export?{self._query(tabled.asked)}",
            "here_again": self._address(tabled, params, after=tabled.asked.after),
            "many": many,
            "fields": fields,
        }

    def _tabled(self, unit: Unit, asked: Asked, limit: int, *, is_ascending: bool) -> Tabled:
        wanted = self.sought(unit, asked)
        place = asked.place(limit, is_ascending=is_ascending)
        found = sifting.page(unit, self.shelf, wanted, place)
        return Tabled(asked, found, sifting.count(unit, self.shelf, wanted), is_ascending)

    def _address(
        self, tabled: Tabled, params: ListParams, *, after: str | None = None, is_ascending: bool | None = None
    ) -> str:
        further = {"after": after} if after else {}
        if tabled.is_ascending if is_ascending is None else is_ascending:
            further["sort"] = "id__asc"
        if params.page_size != self.page_size:
            further["page_size"] = str(params.page_size)
        query = self._query(tabled.asked, further)
        return f"/console/tables/{self.key}/list{'?' if query else ''}{query}"

    @staticmethod
    def _query(asked: Asked, further: Mapping[str, str] | None = None) -> str:
        return urlencode({**({"q": asked.q} if asked.q else {}), **asked.given, **(further or {})})
