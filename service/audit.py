"""The audit of one payment, as whoever shows it asks for it."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from audit.export import export
from receipted.wiring import Service

Proof = TypeVar("Proof")


class Prover(Generic[Proof]):
    """Proves and exports the history of one payment; `proof` makes the proof in the words of whoever asks."""

    def __init__(self, service: Service, proof: Callable[..., Proof]) -> None:
        self._service = service
        self._proof = proof

    def prove(self, payment_id: str) -> Proof:
        """Everything that is kept of the payment is checked; reads only. Raises NotFound."""
        report = self._service.audit().of_payment(payment_id)
        return self._proof(
            messages=report.messages,
            signatures=report.signatures,
            unverifiable=report.unverifiable,
            transitions=report.transitions,
            effects=report.outbox,
            faults=[(fault.table, fault.row, fault.problem) for fault in report.faults],
            retained=report.retained,
            read_again=report.read_again,
            not_readable=report.not_readable,
        )

    def export(self, payment_id: str) -> Iterable[str]:
        """The payment's rows with their digests and bytes, one JSON object a line. Raises NotFound."""
        return export(self._service.database, payment_id)
