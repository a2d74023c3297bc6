"""The tables beside payments and messages: each row's own seal, and whether the tables agree with each other."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, TypeVar

from audit.retained import Retained
from audit.trust import Seals
from storage import audits, hashing
from storage.audits import Reader
from storage.database import Unit
from storage.tables import OperatorAction, RejectedDelivery
from storage.tables_support import AuditRun

Record = TypeVar("Record", OperatorAction, RejectedDelivery, AuditRun)

#: Table, row and problem.
Problem = tuple[str, str, str]

_PAGE: Final = 1000

_ACTIONS: Final = Reader(OperatorAction)
_REJECTED: Final = Reader(RejectedDelivery)
_AUDITS: Final = Reader(AuditRun)


class Actions:
    """What people did, by what it was done to."""

    def __init__(self) -> None:
        self._of: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)

    def add(self, done: OperatorAction) -> None:
        """Remember who did what to whom, and why."""
        self._of[done.action, done.subject].append((done.actor, done.reason))

    def count(self, action: str, subject: str) -> int:
        """How often that was done to it."""
        return len(self._of.get((action, subject), ()))

    def has(self, action: str, subject: str, actor: str, reason: str) -> bool:
        """True where this person did that, for this reason."""
        return (actor, reason) in self._of.get((action, subject), ())


def chained_actions(unit: Unit, opened: Seals, actions: Actions) -> Iterator[Problem]:
    """Every action in the order of its number, each sealed with the one before; fills `actions`."""
    found = list(_rows(unit, _ACTIONS))
    unreadable = [row for row in found if isinstance(row, tuple)]
    for row_id, problem in unreadable:
        yield "operator_action", row_id, problem
    kept = sorted((row for row in found if not isinstance(row, tuple)), key=lambda row: (row.number or 0, row.id))
    before, number = "", 0
    for done in kept:
        actions.add(done)
        if done.number is None and opened.has_none(done.seal, done.at):
            continue  # of before the table had a chain
        if done.number != number + 1:
            yield "operator_action", done.id, f"action {done.number} comes after {number}: one was taken away or added"
        wrong = opened.problem(hashing.action(done, before), done.seal, done.at, "what is kept of it has changed")
        if wrong is not None:
            yield "operator_action", done.id, wrong
        before, number = done.seal or "", done.number or number


def sealed_rows(unit: Unit, opened: Seals, payments: int) -> Iterator[Problem]:
    """Deliveries in quarantine, and earlier audits, which counted no more payments than there are."""
    changed = "what is kept of it has changed"
    for rejected in _rows(unit, _REJECTED):
        if isinstance(rejected, tuple):
            yield "rejected_delivery", *rejected
        elif not opened.has_none(rejected.seal, rejected.received_at):
            problem = opened.problem(hashing.rejected(rejected), rejected.seal, rejected.received_at, changed)
            if problem is not None:
                yield "rejected_delivery", rejected.id, problem
    for run in _rows(unit, _AUDITS):
        if isinstance(run, tuple):
            yield "audit_run", *run
            continue
        if run.payments > payments:
            yield "audit_run", run.id, f"it counted {run.payments} payments, and {payments} are kept"
        if not opened.has_none(run.seal, run.ended_at):
            problem = opened.problem(hashing.audit_run(run), run.seal, run.ended_at, changed)
            if problem is not None:
                yield "audit_run", run.id, problem


def disagreements(unit: Unit, retained: Retained) -> Iterator[Problem]:
    """Rows of one table that another table contradicts, or that belong to a row that is gone."""
    for table, row, gone in audits.dangling(unit):
        yield table, row, f"the {gone} that it belongs to is gone"
    yield from _known(unit, retained)
    for subject, effect, number in audits.events_without_effect(unit):
        yield "event", subject, f"{effect} number {number} stands in the feed, and is not what is owed"
    for row in audits.effects_without_event(unit):
        yield "outbox_message", row, "it is owed, and does not stand in the feed"
    count, least, most, told = audits.feed_numbers(unit)
    if count and (least, most) != (1, count):
        yield "event", "-", f"{count} events are numbered from {least} to {most}: one was taken away, added or changed"
    if told != most:
        yield "event_feed", "-", f"the feed says that its last number is {told}, and its last event is {most}"


def _known(unit: Unit, retained: Retained) -> Iterator[Problem]:
    for account, key, message, is_gone in audits.deliveries_without_message(unit):
        if is_gone and retained.has_message(message):
            continue
        words = f"message {message}, which it names, is gone" if is_gone else f"message {message} is not as it says"
        yield "known_delivery", f"{account}/{key}", words
    for message in audits.messages_without_delivery(unit):
        if retained.has_known(message):
            retained.missed["deliveries"] += 1
        else:
            yield "inbox_message", message, "its delivery key is not known, or known as another message's"


def _rows(unit: Unit, reader: Reader[Record]) -> Iterator[Record | tuple[str, str]]:
    """Every row, page by page; of those that cannot be read the id, and why."""
    yield from ((row, "its id is no text") for row in reader.nameless(unit))
    after = b""
    while (page := reader.page(unit, after, _PAGE)).last:
        yield from page.rows
        yield from page.unreadable
        after = page.last
