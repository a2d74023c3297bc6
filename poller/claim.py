"""Who is asked about next: claims of due payments, in one commit, within the room that is left."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from poller import policy
from poller.book import Book, silent_of
from statemachine import statements
from statemachine.phases import Phase, Review, Source
from storage import inbox, payments, rate_limits
from storage.database import Database, Unit
from storage.rate_limits import Gate
from storage.tables import Payment

log = structlog.get_logger()

#: Of how many due payments the most urgent are chosen, for each one that there is room for.
_CHOICE: Final = 4

_UNPAID = (Phase.OPEN, Phase.PROCESSING)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The payments to ask about now; nobody else's until their lease ends."""

    payments: list[Payment] = field(default_factory=list)
    is_probe: bool = False  #: the provider was away: this one question tells whether it still is


class Claims:
    """Takes what is due. Any number of processes may do so at once."""

    def __init__(
        self,
        database: Database,
        book: Book,
        clock: Callable[[], datetime],
        *,
        concurrency: int,
        create_grace: timedelta,
        lease: timedelta,
    ) -> None:
        self._database = database
        self._book = book
        self._clock = clock
        self._concurrency = concurrency
        self._create_grace = create_grace
        self._lease = lease

    def take(self, account: str, urgent: int = 0, patient: int = 0) -> Claimed:
        """The account's most urgent payments, as many as there is room for beside those under way.

        Nothing while the provider wants no requests, or is away; then one at a time tries. A payment that has gone
        without a change for too long is given up visibly instead. Raises StorageUnavailable.
        """
        now = self._clock()
        if not self._is_any_due(account, now):
            return Claimed()  # mostly: so nobody waits for the right to write
        with self._database.write() as unit:
            for silent in payments.unanswered_creates(unit, account, now - self._create_grace):
                self._give_up(unit, silent, Review.CREATE_UNKNOWN, "the create call left no answer", now)
            if rate_limits.pause_left(unit, account, now):
                return Claimed()
            room = self._concurrency
            wanted = payments.wanted(unit, account, now, max(room - urgent, 0))
            due = payments.due_by_schedule(unit, account, now, max(room - patient, 0) * _CHOICE)
            if not wanted and not due:
                return Claimed()
            gate = rate_limits.gate(unit, account, now, self._lease)
            if gate is Gate.OPEN:
                return Claimed()
            chosen = self._choose(unit, [p for p in due if not self._gives_up(unit, p, now)], room - patient, now)
            taken = [p for p in wanted if not self._gives_up(unit, p, now)] + chosen
            if gate is Gate.PROBE:
                taken = taken[:1]
            payments.set_next_polls(unit, {payment.id: now + self._lease for payment in taken})
        for payment in taken:
            payment.next_poll_at = now + self._lease
        return Claimed(taken, is_probe=gate is Gate.PROBE)

    def _is_any_due(self, account: str, now: datetime) -> bool:
        with self._database.read() as unit:
            is_unanswered, is_due = payments.anything_to_ask(unit, account, now, now - self._create_grace)
            return is_unanswered or (is_due and not rate_limits.is_barred(unit, account, now))

    def _choose(self, unit: Unit, due: list[Payment], room: int, now: datetime) -> list[Payment]:
        if not due:
            return []
        entries = [(payment, self._book.outlook(payment), silent_of(payment)) for payment in due]
        chosen = policy.choose(self._book.schedule(due[0].account), entries, room, now)
        payments.set_next_polls(unit, {payment.id: at for payment, at in chosen.later})
        return chosen.now

    def _gives_up(self, unit: Unit, payment: Payment, now: datetime) -> bool:
        # Where a person is to look already, somebody has asked for this question since.
        is_unseen = payment.phase in _UNPAID and payment.review is None
        if not is_unseen or not self._book.schedule(payment.account).has_given_up(payment.changed_at, now):
            return False
        self._give_up(unit, payment, Review.GAVE_UP, "no change for as long as we go on asking", now)
        payments.set_next_poll(unit, payment.id, None)
        return True

    def _give_up(self, unit: Unit, payment: Payment, review: Review, reason: str, now: datetime) -> None:
        message = inbox.new_message(
            account=payment.account,
            source=Source.POLLER.value,
            delivery_key=f"gave_up:{payment.id}:{review.value}:{payment.version}:{payment.reviews}",
            body=statements.encode(statements.GaveUp(review.value, reason)),
            headers=(("content-type", statements.CONTENT_TYPE),),
            received_at=now,
            about=payment.id,
        )
        inbox.record(unit, [message])
        log.warning("poll.gave_up", account=payment.account, payment_id=payment.id, review=review.value)
