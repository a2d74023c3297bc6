"""Proof of one payment: recomputed from what is kept, and exported to be checked without this program."""

from typing import Final, Literal

from pydantic import Field

from api.answers import RecordId, Shape
from api.operation import Call, Operation, Plain
from service.permissions import Permission


class FaultAnswer(Shape):
    """One row that is not what it was when it was written."""

    table: str
    row: str
    problem: str


class ProofAnswer(Shape):
    """What was checked of one payment, and what was found."""

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


async def prove(call: Call) -> ProofAnswer:
    """Prove a payment's history: seals and signatures are checked, and every message is decided again.

    That nothing was removed which only another payment's rows would show is proved by `receipted audit verify` over
    everything.
    """
    payment = await call.payment()
    proof = await call.parts.in_thread(lambda: call.parts.prover.prove(payment.id))
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


async def export(call: Call) -> Plain:
    """Export a payment's history as JSON lines, with its digests and bytes.

    They hold personal data.
    """
    payment = await call.payment()
    lines = await call.parts.in_thread(lambda: list(call.parts.prover.export(payment.id)))
    return Plain("application/x-ndjson", body="".join(f"{line}\n" for line in lines).encode())


_NO_PAYMENT: Final = {404: "no such payment, or its account is not configured any more"}

OPERATIONS: Final = (
    Operation(
        "GET",
        "/v1/payments/{id}/proof",
        "prove_payment",
        "Audit",
        Permission.READ,
        prove,
        ProofAnswer,
        refusals=_NO_PAYMENT,
    ),
    Operation(
        "GET",
        "/v1/payments/{id}/export",
        "export_payment",
        "Audit",
        Permission.EXPORT,
        export,
        None,
        media_types=("application/x-ndjson",),
        refusals=_NO_PAYMENT,
    ),
)
