"""Checks of the other tables: seals of rows, and agreement between tables."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, TypeVar

from audit.retention import RetentionRecords
from audit.seals import SealVerifier
from storage import audits, hashing
from storage.audits import Reader
from storage.database import Unit
from storage.tables import OperatorAction, RejectedDelivery
from storage.tables_support import AuditRun

Record = TypeVar("Record", OperatorAction, RejectedDelivery, AuditRun)

#: Table, row and problem.
Problem = tuple[str, str, str]

_PAGE_SIZE: Final = 1000

_ACTIONS: Final = Reader(OperatorAction)
_REJECTED: Final = Reader(RejectedDelivery)
_AUDITS: Final = Reader(AuditRun)


class ActionIndex:
    """Operator actions by action and subject."""

    def __init__(self) -> None:
        self._of: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)

    def add(self, action: OperatorAction) -> None:
        """Index one action with its actor and reason."""
        self._of[action.action, action.subject].append((action.actor, action.reason))

    def count(self, action: str, subject: str) -> int:
        """Count how often the action was done to the subject."""
        return len(self._of.get((action, subject), ()))

    def has(self, action: str, subject: str, actor: str, reason: str) -> bool:
        """Return whether this person did that to the subject, for this reason."""
        return (actor, reason) in self._of.get((action, subject), ())


def chained_actions(unit: Unit, seals: SealVerifier, actions: ActionIndex) -> Iterator[Problem]:
    """Verify the chain of operator actions by number, and fill `actions`."""
    found = list(_rows(unit, _ACTIONS))
    unreadable = [row for row in found if isinstance(row, tuple)]
    for row_id, problem in unreadable:
        yield "operator_action", row_id, problem
    kept = sorted((row for row in found if not isinstance(row, tuple)), key=lambda row: (row.number or 0, row.id))
    previous_seal, number = "", 0
    for row in kept:
        actions.add(row)
        if row.number is None and seals.predates_seals(row.seal, row.at):
            continue  # of before the table had a chain
        if row.number != number + 1:
            yield "operator_action", row.id, f"action {row.number} comes after {number}: one was taken away or added"
        content, changed = hashing.action(row, previous_seal), "what is kept of it has changed"
        wrong = seals.problem(content, row.seal, row.at, changed)
        if wrong is not None:
            yield "operator_action", row.id, wrong
        previous_seal, number = row.seal or "", row.number or number


def sealed_rows(unit: Unit, seals: SealVerifier, payments: int) -> Iterator[Problem]:
    """Verify the seals of quarantined deliveries and of earlier audits.

    An earlier audit that counted more than `payments` payments shows that some have gone.
    """
    changed = "what is kept of it has changed"
    for rejected in _rows(unit, _REJECTED):
        if isinstance(rejected, tuple):
            yield "rejected_delivery", *rejected
        elif not seals.predates_seals(rejected.seal, rejected.received_at):
            problem = seals.problem(hashing.rejected(rejected), rejected.seal, rejected.received_at, changed)
            if problem is not None:
                yield "rejected_delivery", rejected.id, problem
    for run in _rows(unit, _AUDITS):
        if isinstance(run, tuple):
            yield "audit_run", *run
            continue
        if run.payments > payments:
            yield "audit_run", run.id, f"it counted {run.payments} payments, and {payments} are kept"
        if not seals.predates_seals(run.seal, run.ended_at):
            problem = seals.problem(hashing.audit_run(run), run.seal, run.ended_at, changed)
            if problem is not None:
                yield "audit_run", run.id, problem


def disagreements(unit: Unit, retention: RetentionRecords) -> Iterator[Problem]:
    """Yield rows that another table contradicts, or that belong to a row that is gone."""
    for table, row, gone in audits.dangling(unit):
        if gone == "inbox_message" and retention.has_message(row):
            continue  # what was decided stays until its own partition goes
        yield table, row, f"the {gone} that it belongs to is gone"
    yield from _known_deliveries(unit, retention)
    for subject, effect, number in audits.events_without_effect(unit):
        yield "event", subject, f"{effect} number {number} stands in the feed, and is not what is owed"
    for row in audits.effects_without_event(unit):
        yield "outbox_message", row, "it is owed, and does not stand in the feed"
    for row in audits.queued_otherwise(unit):
        yield "outbox_queue", row, "it is not as the outbox message says"
    for row in audits.queued_and_delivered(unit):
        yield "outbox_queue", row, "it waits, and is delivered"
    count, least, most, last_number = audits.feed_numbers(unit)
    if count and (least, most) != (1, count):
        yield "event", "-", f"{count} events are numbered from {least} to {most}: one was taken away, added or changed"
    if last_number != most:
        yield "event_feed", "-", f"the feed says that its last number is {last_number}, and its last event is {most}"


def _known_deliveries(unit: Unit, retention: RetentionRecords) -> Iterator[Problem]:
    for account, key, message, is_gone in audits.deliveries_without_message(unit):
        if is_gone and retention.has_message(message):
            continue
        words = f"message {message}, which it names, is gone" if is_gone else f"message {message} is not as it says"
        yield "known_delivery", f"{account}/{key}", words
    for message in audits.messages_without_delivery(unit):
        if retention.has_known(message):
            retention.missed["deliveries"] += 1
        else:
            yield "inbox_message", message, "its delivery key is not known, or known as another message's"


def _rows(unit: Unit, reader: Reader[Record]) -> Iterator[Record | tuple[str, str]]:
    """Yield every row by the page; id and problem of one that cannot be read."""
    yield from ((row, "its id is no text") for row in reader.nameless(unit))
    after = b""
    while (page := reader.page(unit, after, _PAGE_SIZE)).last:
        yield from page.rows
        yield from page.unreadable
        after = page.last
