"""Reconciliations: runs through a provider's list, and the drift that each found."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import Field

from api.caller import PathId, ReadCaller
from api.payments import page_place
from api.responses import missing
from api.routing import api_router
from api.schemas import Listing, RecordId, Shape, listing
from api.validation import Name, PageQuery
from storage import reconciliations, search
from storage.search import RowFilter
from storage.tables_support import Reconciliation
from storage.types import ReconciliationStatus

router = api_router("Reconciliations")

_NO_ACCOUNT: Final = missing("no such account")
_NO_RECONCILIATION: Final = missing("no such reconciliation, or its account is not configured any more")


class ReconciliationsQuery(PageQuery):
    """Filters of reconciliations."""

    account: Name | None = Field(None, description="of this account")
    status: ReconciliationStatus | None = Field(None, description="in this status")


class ReconciliationAnswer(Shape):
    """One run through a provider's list, without what it found of each payment."""

    object: Literal["reconciliation"] = "reconciliation"
    id: RecordId
    account: str
    since: datetime = Field(description="of payments that were created or changed from then on")
    until: datetime = Field(description="and before then")
    asked_by: str = Field(description="`schedule` for the daily one")
    began_at: datetime
    finished_at: datetime | None
    status: ReconciliationStatus
    stage: str = Field(description="listing, then asking")
    listed: int = Field(description="things that the provider's list named")
    pages: int
    to_ask: int = Field(description="payments that were left to ask about")
    asked: int = Field(description="of those: answered")
    failed: int = Field(description="of those: questions without an answer")
    counts: dict[str, int] = Field(description="what the answers came to, once it is done")
    last_error: str | None


class DriftAnswer(Shape):
    """One payment that was otherwise at the provider than here."""

    payment: RecordId
    kind: str
    provider_ref: str | None
    reference: str | None
    was: str | None = Field(description="state here, before")
    now: str | None = Field(description="state at the provider")
    phase: str
    is_adopted: bool = Field(description="it was unknown here")
    since: datetime | None = Field(description="since when, by the provider's own time")
    found_at: datetime
    unknown_for_seconds: float | None
    at_most_seconds: float | None
    is_fresh: bool = Field(description="so young that a webhook may have been on its way")
    is_alarming: bool
    effects: list[str]
    reviews: list[str]
    found_by: str
    message: RecordId
    reason: str


class UnaskedAnswer(Shape):
    """One payment that was not asked about, or not answered."""

    payment: RecordId | None = Field(description="null where the list could not be read to its end")
    kind: str | None
    provider_ref: str | None
    code: str
    reason: str


class WholeReconciliation(ReconciliationAnswer):
    """One run through a provider's list, with all that it found."""

    drift: list[DriftAnswer]
    unasked: list[UnaskedAnswer] = Field(description="the first of them")


@router.get("/reconciliations", operation_id="list_reconciliations", responses=_NO_ACCOUNT)
async def list_reconciliations(
    caller: ReadCaller, query: Annotated[ReconciliationsQuery, Query()]
) -> Listing[ReconciliationAnswer]:
    """List reconciliations, newest first, without the drift of each."""
    among = {"account": caller.accounts(query.account)}
    if query.status is not None:
        among["status"] = [query.status.value]
    page = await caller.read(lambda unit: search.reconciliations(unit, RowFilter(among=among), page_place(query)))
    items = [ReconciliationAnswer(**_fields(row)) for row in page.rows]
    return Listing[ReconciliationAnswer](**listing(items, page, is_backwards=query.is_backwards))


@router.get("/reconciliations/{id}", operation_id="get_reconciliation", responses=_NO_RECONCILIATION)
async def get_reconciliation(caller: ReadCaller, reconciliation_id: PathId) -> WholeReconciliation:
    """Show a reconciliation with the drift that it found."""
    row = await caller.read(lambda unit: reconciliations.get(unit, reconciliation_id))
    caller.require_account(row.account)
    return WholeReconciliation(
        **_fields(row),
        drift=[_drift_answer(entry) for entry in row.drift],
        unasked=[UnaskedAnswer(**entry) for entry in row.unasked],
    )


def _fields(row: Reconciliation) -> dict[str, Any]:
    names = ReconciliationAnswer.model_fields.keys() - {"object"}
    return {name: getattr(row, name) for name in names}


def _drift_answer(entry: Mapping[str, Any]) -> DriftAnswer:
    return DriftAnswer(now=entry["is"], **{name: value for name, value in entry.items() if name != "is"})
