"""What is gone by a rule of retention, and how much of it the audit has missed: the two must be the same."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from audit.trust import Seals
from storage import hashing
from storage.tables_support import RetentionRun
from storage.types import RetentionRule, RetentionStatus

#: Gone in any case; a partition is gone once it is detached.
_GONE = (RetentionStatus.DETACHED.value, RetentionStatus.DONE.value)


class Retained:
    """The records of retention, and what was missed that they explain. Ranges are exact: one row beside is a fault."""

    def __init__(self, runs: Sequence[RetentionRun]) -> None:
        self._runs = runs
        self.missed: Counter[str] = Counter()  #: bodies, messages, statements, transitions, attempts

    def has_message(self, message_id: str) -> bool:
        """Whether a message of that id may have gone with its partition."""
        return any(_covers(run, message_id) for run in self._of(RetentionRule.INBOX))

    def has_history(self, payment_id: str) -> bool:
        """Return whether the payment's transitions may have gone with their partition."""
        return any(_covers(run, payment_id) for run in self._of(RetentionRule.HISTORY))

    def has_attempts(self, outbox_id: str) -> bool:
        """Return whether the attempts to deliver an effect of that id may have gone."""
        return any(_covers(run, outbox_id) for run in self._of(RetentionRule.ATTEMPTS))

    @property
    def takes_messages(self) -> bool:
        """Whether any message has gone at all."""
        return bool(self._of(RetentionRule.INBOX))

    def has_body(self, message_id: str, scrubbed_at: datetime) -> bool:
        """Whether a run took the message's body at that instant."""
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

    def problems(self, opened: Seals) -> Iterator[tuple[str, str]]:
        """(run, problem) of every record that was changed, and of sums that do not agree."""
        for run in self._runs:
            changed = "what is kept of the run has changed"
            problem = opened.problem(hashing.retention_run(run), run.seal, run.changed_at, changed)
            if problem is not None:
                yield run.id, problem
        for rule, what, column in (
            (RetentionRule.INBOX, "statements", "statements"),
            (RetentionRule.HISTORY, "transitions", "rows"),
            (RetentionRule.ATTEMPTS, "attempts", "rows"),
        ):
            runs = self._of(rule)
            if any(run.status == RetentionStatus.DETACHED for run in runs):
                continue  # it is being counted
            told = sum(getattr(run, column) for run in runs)
            if told != self.missed[what]:
                yield "-", f"{self.missed[what]} {what} are missing, and the rule {rule.value} took {told}"
        bodies = sum(run.rows for run in self._runs if run.rule == RetentionRule.BODIES)
        if self.missed["bodies"] > bodies:
            yield "-", f"{self.missed['bodies']} bodies are gone, and the rule bodies took {bodies}"


def _covers(run: RetentionRun, an_id: str) -> bool:
    return (run.since_id or "") <= an_id < run.until_id
