"""Audit: one payment's history, verified or exported, and the actions of people."""

from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import Field, StringConstraints

from api.caller import ExportCaller, PathId, ReadCaller
from api.payments import page_place
from api.responses import JsonLines, missing
from api.routing import api_router
from api.schemas import ActionAnswer, Listing, RecordId, Shape, action_answer, listing
from api.validation import TEXT, Name, PageQuery
from storage import search
from storage.search import RowFilter

router = api_router("Audit")

_NO_PAYMENT: Final = missing("no such payment, or its account is not configured any more")
_NO_ACCOUNT: Final = missing("no such account")


class ActionsQuery(PageQuery):
    """Filters of actions."""

    account: Name | None = Field(None, description="about what is of this account")
    actor: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT)] | None = Field(
        None, description="by this person or key"
    )
    action: Name | None = Field(None, description="of this name, such as resolve or redrive")
    subject: Name | None = Field(None, description="about this payment, inbox message or outbox message")


class FaultAnswer(Shape):
    """One row that is not what it was when it was written."""

    table: str
    row: str
    problem: str


class ProofAnswer(Shape):
    """Result of verifying one payment's history."""

    object: Literal["proof"] = "proof"
    payment: RecordId
    holds: bool = Field(description="whether everything that is kept of it is as it was written")
    messages: int
    signatures: int = Field(description="verified again")
    unverifiable: int = Field(description="authentic when received, with a key that is gone and allowed by name")
    read_again: int = Field(description="statements that were read and decided again, with the same result")
    not_readable: int = Field(description="statements that could not be: their bytes are gone by a rule of retention")
    transitions: int
    effects: int
    faults: list[FaultAnswer]
    retained: dict[str, int] = Field(description="what rules of retention took, on record; no fault")


@router.get("/payments/{id}/proof", operation_id="prove_payment", responses=_NO_PAYMENT)
async def prove_payment(caller: ReadCaller, payment_id: PathId) -> ProofAnswer:
    """Prove a payment's history.

    Seals and signatures are checked, and every message is decided again.

    That nothing was removed which only another payment's rows would show is proved by `receipted audit verify` over
    everything.
    """
    payment = await caller.payment(payment_id)
    proof = await caller.deps.in_thread(lambda: caller.deps.prover.prove(payment.id))
    return ProofAnswer(
        payment=payment.id,
        holds=not proof.faults,
        messages=proof.messages,
        signatures=proof.signatures,
        unverifiable=proof.unverifiable,
        read_again=proof.read_again,
        not_readable=proof.not_readable,
        transitions=proof.transitions,
        effects=proof.effects,
        faults=[FaultAnswer(table=table, row=row, problem=problem) for table, row, problem in proof.faults],
        retained=dict(proof.retained),
    )


@router.get("/payments/{id}/export", operation_id="export_payment", response_class=JsonLines, responses=_NO_PAYMENT)
async def export_payment(caller: ExportCaller, payment_id: PathId) -> JsonLines:
    """Export a payment's history as JSON lines, with its digests and bytes.

    They hold personal data.
    """
    payment = await caller.payment(payment_id)
    lines = await caller.deps.in_thread(lambda: list(caller.deps.prover.export(payment.id)))
    return JsonLines("".join(f"{line}\n" for line in lines).encode())


@router.get("/actions", operation_id="list_actions", responses=_NO_ACCOUNT)
async def list_actions(caller: ReadCaller, query: Annotated[ActionsQuery, Query()]) -> Listing[ActionAnswer]:
    """List what people and keys did to payments and messages, newest first.

    Actions that are of no account, such as those about people and keys, are not shown.
    """
    wanted = {"actor": query.actor, "action": query.action, "subject": query.subject}
    among = {name: [value] for name, value in wanted.items() if value is not None}
    among["account"] = caller.accounts(query.account)
    page = await caller.read(lambda unit: search.actions(unit, RowFilter(among=among), page_place(query)))
    items = [action_answer(row) for row in page.rows]
    return Listing[ActionAnswer](**listing(items, page, is_backwards=query.is_backwards))
