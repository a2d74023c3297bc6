"""Rows missing by a rule of retention; as many must be missing as recorded."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from audit.seals import SealVerifier
from storage import hashing
from storage.tables_support import RetentionRun
from storage.types import RetentionRule, RetentionStatus

#: Statuses of a run whose rows are gone; a partition is gone once it is detached.
_GONE = (RetentionStatus.DETACHED.value, RetentionStatus.DONE.value)


class RetentionRecords:
    """Recorded runs of retention, and the rows that the audit missed and they explain.

    Ranges are exact: a missing row that lies outside them is a fault.
    """

    def __init__(self, runs: Sequence[RetentionRun]) -> None:
        self._runs = runs
        self.missed: Counter[str] = Counter()  #: bodies, messages, statements, transitions, attempts, deliveries

    def has_message(self, message_id: str) -> bool:
        """Return whether a message of that id may have gone with its partition."""
        return any(_covers(run, message_id) for run in self._of(RetentionRule.INBOX))

    def has_history(self, payment_id: str) -> bool:
        """Return whether the payment's transitions may have gone with their partition."""
        return any(_covers(run, payment_id) for run in self._of(RetentionRule.HISTORY))

    def has_attempts(self, outbox_id: str) -> bool:
        """Return whether the attempts to deliver an effect of that id may have gone."""
        return any(_covers(run, outbox_id) for run in self._of(RetentionRule.ATTEMPTS))

    @property
    def takes_messages(self) -> bool:
        """True once any message has gone."""
        return bool(self._of(RetentionRule.INBOX))

    def has_body(self, message_id: str, scrubbed_at: datetime) -> bool:
        """Return whether a run scrubbed the message's body at that instant."""
        return any(
            message_id < run.until_id and run.began_at <= scrubbed_at <= run.changed_at
            for run in self._runs
            if run.rule == RetentionRule.BODIES and run.rows
        )

    def _of(self, rule: RetentionRule) -> list[RetentionRun]:
        return [
            run
            for run in self._runs
            if run.rule == rule and (run.status in _GONE if run.partition is not None else run.rows > 0)
        ]

    def has_known(self, message_id: str) -> bool:
        """Return whether the delivery key of a message of that id may have been forgotten."""
        return any(message_id < run.until_id for run in self._of(RetentionRule.KNOWN))

    def problems(self, seals: SealVerifier) -> Iterator[tuple[str, str]]:
        """Yield (run, problem) for every changed record and every sum that differs."""
        for run in self._runs:
            changed = "what is kept of the run has changed"
            problem = seals.problem(hashing.retention_run(run), run.seal, run.changed_at, changed)
            if problem is not None:
                yield run.id, problem
        for rule, noun, column in (
            (RetentionRule.INBOX, "statements", "statements"),
            (RetentionRule.HISTORY, "transitions", "rows"),
            (RetentionRule.ATTEMPTS, "attempts", "rows"),
        ):
            runs = self._of(rule)
            if any(run.status == RetentionStatus.DETACHED for run in runs):
                continue  # it is being counted
            recorded = sum(getattr(run, column) for run in runs)
            if recorded != self.missed[noun]:
                yield "-", f"{self.missed[noun]} {noun} are missing, and the rule {rule.value} took {recorded}"
        bodies = sum(run.rows for run in self._runs if run.rule == RetentionRule.BODIES)
        if self.missed["bodies"] > bodies:
            yield "-", f"{self.missed['bodies']} bodies are gone, and the rule bodies took {bodies}"


def _covers(run: RetentionRun, row_id: str) -> bool:
    return (run.since_id or "") <= row_id < run.until_id
