"""The audit of one payment for those who show it: its proof, and its export."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from audit.export import export
from audit.verify import Audit
from storage.database import Database


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of proving one payment's history."""

    messages: int
    signatures: int
    unverifiable: int
    transitions: int
    effects: int
    faults: Sequence[tuple[str, str, str]]  #: table, row, problem
    retained: Mapping[str, int] = field(default_factory=dict)  #: what a rule of retention took, by what it is
    read_again: int = 0  #: statements that were read and decided again, with the same result
    not_readable: int = 0  #: statements that could not be: their bytes are gone by a rule


class Prover:
    """Proves and exports the history of one payment."""

    def __init__(self, database: Database, audit: Callable[[], Audit]) -> None:
        """Take what makes an audit: each has a report of its own."""
        self._database = database
        self._audit = audit

    def prove(self, payment_id: str) -> Proof:
        """Check everything that is kept of the payment; reads only. Raises NotFound."""
        report = self._audit().of_payment(payment_id)
        return Proof(
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
        """Export the payment as JSON lines with digests and bytes; raises NotFound."""
        return export(self._database, payment_id)
