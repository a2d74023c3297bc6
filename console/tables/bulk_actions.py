"""Bulk actions on rows of a table, in steps that each answer within seconds.

The page after each step shows the progress, goes on by itself, and can be left.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import Response

from console.access import Person
from console.actions import parse_reason
from console.deps import ConsoleDeps
from console.errors import InvalidForm
from console.pages import PageRenderer
from service.text import shown
from statemachine.errors import ServiceError
from storage import search
from storage.errors import StorageUnavailable
from storage.ids import is_id
from storage.search import PageCursor, RowFilter
from storage.types import OutboxStatus

#: Seconds of one step, and rows of it.
_STEP_TIME_S: Final = 4.0
_MAX_ROWS: Final = 100

#: What did not work, that one page names.
_MAX_FAILURES_SHOWN: Final = 50

#: Filters that say which dead effects are meant, where all of them are.
_NARROWING: Final = ("account", "effect", "sink")

#: (id, reason, by, whether overtaken ones are meant too) -> what became of it, in words
RowAction = Callable[[str, str, str, bool], Awaitable[str]]


@dataclass(slots=True)
class BulkProgress:
    """Progress of a bulk action."""

    total: int
    done: int = 0
    failed: int = 0
    words: list[tuple[str, str]] = field(default_factory=list)  #: of this step: ids and what did not work
    left: list[str] = field(default_factory=list)  #: ids that are still to be done
    after: str | None = None  #: where to go on among all of them

    @property
    def is_over(self) -> bool:
        """True where no row is left."""
        return not self.left and self.after is None


class BulkActionPages:
    """Endpoint of one bulk action on one table."""

    def __init__(self, deps: ConsoleDeps, pages: PageRenderer, key: str, verb: str, done: str, do: RowAction) -> None:
        self._deps, self._pages, self._key, self._do = deps, pages, key, do
        self._verb, self._done = verb, done

    async def run_step(self, request: Request) -> Response:
        """Do one step and serve its progress; raises InvalidForm."""
        person: Person = request.state.person
        form: ImmutableMultiDict[str, str] = request.state.form
        reason = parse_reason(form, is_needed=True)
        among = {name: form[name] for name in _NARROWING if form.get(name)} if form.get("all") else None
        step = await self._start(form, among)
        overtaken = form.get("overtaken") == "1"
        await self._act_on_rows(step, reason, person.name, overtaken=overtaken)
        return await self._pages.show(
            request,
            "tables/step.html",
            step=step,
            plain=shown,
            verb=self._verb,
            done_word=self._done,
            reason=reason,
            among=among,
            overtaken=overtaken,
            back=f"/console/tables/{self._key}/list",
        )

    async def _start(self, form: ImmutableMultiDict[str, str], among: Mapping[str, str] | None) -> BulkProgress:
        done, failed = _number(form, "done"), _number(form, "failed")
        if among is None:
            ids = list(dict.fromkeys(form.getlist("id")))
            if not ids or len(ids) > _MAX_ROWS or not all(map(is_id, ids)):
                raise InvalidForm(f"choose between 1 and {_MAX_ROWS} rows", param="id")
            return BulkProgress(_number(form, "total") or len(ids), done, failed, left=ids)
        if self._key != "outbox":
            raise InvalidForm("rows are chosen one by one", param="all")
        wanted = RowFilter({"status": OutboxStatus.DEAD.value, **among})
        after = form.get("after") or None
        if after is not None and not is_id(after):
            raise InvalidForm("after is the id of a row", param="after")
        batch = min(self._deps.limits.redrive_batch, _MAX_ROWS)
        found = await self._deps.read(
            lambda unit: search.page(unit, search.OWED, wanted, PageCursor(batch, after, is_ascending=True))
        )
        total = _number(form, "total")
        if not total:
            total = (await self._deps.read(lambda unit: search.count(unit, search.OWED, wanted))).number
        ids = [str(line["id"]) for line in found.rows]
        return BulkProgress(max(total, done + failed + len(ids)), done, failed, left=ids, after=found.after)

    async def _act_on_rows(self, step: BulkProgress, reason: str, by: str, *, overtaken: bool) -> None:
        """Act on rows while there is time; the next step begins with those that are left."""
        deadline = time.monotonic() + _STEP_TIME_S
        last: str | None = None
        while step.left and time.monotonic() < deadline and not self._deps.stopping.is_set():
            row_id = step.left[0]
            try:
                await self._do(row_id, reason, by, overtaken)
                step.done += 1
            except StorageUnavailable:
                raise  # nothing more can be done now, and what was done is recorded
            except ServiceError as refusal:
                step.failed += 1
                step.words = [*step.words, (row_id, refusal.message)][:_MAX_FAILURES_SHOWN]
            last = step.left.pop(0)
        if step.left and step.after is not None and last is not None:
            step.left, step.after = [], last


def _number(form: ImmutableMultiDict[str, str], name: str) -> int:
    """Parse a number of the page before; it is shown, and decides nothing."""
    value = form.get(name, "0")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0


def bulk_routes(
    deps: ConsoleDeps, pages: PageRenderer
) -> Sequence[tuple[str, Callable[[Request], Awaitable[Response]]]]:
    """Return path, below the tables, and endpoint of each bulk action."""

    async def replay(row_id: str, reason: str, by: str, _overtaken: bool) -> str:
        return (await deps.commands().replay(row_id, reason=reason, by=by)).status

    async def redrive(row_id: str, reason: str, by: str, overtaken: bool) -> str:
        return (await deps.commands().redrive(row_id, reason=reason, by=by, overtaken=overtaken)).status

    async def redeem(row_id: str, reason: str, by: str, _overtaken: bool) -> str:
        return await deps.in_thread(lambda: deps.redeemer.redeem(row_id, reason=reason, by=by))

    return [
        ("/inbox/replay", BulkActionPages(deps, pages, "inbox", "Replaying", "replayed", replay).run_step),
        ("/outbox/redrive", BulkActionPages(deps, pages, "outbox", "Redriving", "due again", redrive).run_step),
        (
            "/quarantine/redeem",
            BulkActionPages(deps, pages, "quarantine", "Redeeming", "authentic now", redeem).run_step,
        ),
    ]
