"""Payments of one unit of work in memory, written with one statement a table.

What is not known in memory is asked of the database, so that no answer rests on what was loaded beforehand: a payment
is one object here however it is found, and what the database says of it is no newer than that object.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

from storage import advisory_locks, batches, hints, outbox, payment_polls, payments
from storage.batches import AsRead, Key, PollAsRead
from storage.database import Unit
from storage.errors import NotFound
from storage.tables import InboxMessage, OutboxMessage, Payment, PaymentPoll, Transition
from storage.types import PollPriority

#: Unanswered create calls of one account that are remembered one by one.
_MAX_UNANSWERED_CREATES: Final = 100


class Session:
    """One unit of work; writes on `flush`, or before a query that needs its changes."""

    is_rerun = False  #: True in the audit, which decides again: nothing is written or logged

    def __init__(self, unit: Unit, now: datetime) -> None:
        self._unit = unit
        self.sealer = unit.sealer
        self.now = now  #: one instant for all of it
        self.moment = now.isoformat()
        self._by_id: dict[str, Payment] = {}
        self._read: dict[str, AsRead] = {}  #: of those that the database holds
        self._polls: dict[str, PaymentPoll] = {}
        self._polls_read: dict[str, PollAsRead] = {}
        self._absent: set[str] = set()  #: ids that are no payment's
        self._by_ref: dict[Key, Payment | None] = {}  #: None: the database holds none
        self._by_name: dict[Key, Payment | None] = {}  #: by further name; None: the database holds none
        self._unbound: dict[Key, Payment | None] = {}  #: the newest that the database held, by reference
        self._added: dict[Key, list[Payment]] = {}  #: without a ref when they were begun here, by reference
        self._namesakes: dict[Key, tuple[str, ...]] = {}  #: of references, as the database had them
        self._renamed: dict[Key, set[str]] = {}  #: payments of a reference that have changed here since
        self._begun: list[Payment] = []  #: without a ref, and not asked of the database
        self._waiting: dict[tuple[str, tuple[str, ...], datetime], list[str]] = {}
        self._owed: set[tuple[str, str, str, int]] = set()
        self._owed_last: dict[str, int] = {}  #: by payment: the number of what it was owed last
        self._owed_known: set[str] = set()  #: payments of which all that is owed is in `_owed`
        self._held: set[tuple[str, str]] = set()  #: names of payments that are ours until the unit of work ends
        # to be written
        self._new: dict[str, Payment] = {}
        self._changed: dict[str, Payment] = {}
        self._names: list[tuple[str, str, str, str]] = []
        self._transitions: list[Transition] = []
        self._outbox: list[OutboxMessage] = []
        self._finished: list[InboxMessage] = []
        self._postponed: list[tuple[InboxMessage, datetime, str | None]] = []
        self._reopened: dict[tuple[str, str], None] = {}

    # -- loading

    def busy(self, refs: Iterable[Key]) -> set[tuple[str, str]]:
        """Lock these provider ids until the unit ends; return those that are locked."""
        wanted = {(account, ref) for account, _, ref in refs}
        busy = advisory_locks.busy(self._unit, wanted)
        self._held = wanted - busy
        return busy

    def load(self, refs: Collection[Key], ids: Collection[str]) -> None:
        """Load the payments with these provider ids or ids of ours, as far as they exist."""
        wanted = [key for key in refs if key not in self._by_ref]
        if wanted:
            found = batches.by_ref(self._unit, wanted)
            self._by_ref.update(dict.fromkeys(wanted))
            self._keep(found)
        missing = [each for each in ids if each not in self._by_id and each not in self._absent]
        if missing:
            found = batches.by_id(self._unit, missing)
            self._absent.update(missing)
            self._absent.difference_update([payment.id for payment in found])
            self._keep(found)

    def load_names(self, keys: Collection[Key]) -> None:
        """Load the payments with these further names, as far as they exist."""
        wanted = [key for key in keys if key not in self._by_name]
        if wanted:
            found = batches.by_name(self._unit, wanted)
            self._by_name.update(dict.fromkeys(wanted))
            self.load((), set(found.values()))
            for key, payment_id in found.items():
                self._by_name[key] = self._by_id.get(payment_id)

    def load_unbound(self, keys: Collection[Key]) -> None:
        """Load the payments of these references that have no provider's id yet."""
        wanted = [key for key in keys if key not in self._unbound]
        if not wanted:
            return
        found = batches.newest(self._unit, wanted, batches.UNBOUND)
        self.load((), [payment_id for payment_id in found.values() if payment_id is not None])
        for key, payment_id in found.items():
            payment = None if payment_id is None else self._by_id.get(payment_id)
            if payment_id is None or (payment is not None and payment.provider_ref is None):
                self._unbound[key] = payment

    def load_namesakes(self, keys: Collection[Key]) -> None:
        """Load the ids of the earliest payments of these references."""
        wanted = [key for key in keys if key not in self._namesakes]
        if wanted:
            self._namesakes.update(batches.namesakes(self._unit, wanted))
            for key in wanted:
                self._renamed.pop(key, None)

    def _keep(self, found: Iterable[Payment]) -> None:
        """Keep one object of each payment, and read when it is asked about."""
        new = [payment for payment in found if self._by_id.setdefault(payment.id, payment) is payment]
        for payment in new:
            self._read[payment.id] = batches.as_read(payment)
            if payment.provider_ref is not None:
                self._by_ref[payment.account, payment.kind, payment.provider_ref] = payment
        if new:
            for poll in batches.polls(self._unit, [payment.id for payment in new]):
                self._polls[poll.payment_id] = poll
                self._polls_read[poll.payment_id] = batches.poll_as_read(poll)

    # -- finding

    def get(self, payment_id: str) -> Payment:
        """Return a payment; raise NotFound."""
        found = self.known(payment_id)
        if found is None:
            raise NotFound(f"no payment {payment_id}", param="payment")
        return found

    def poll_of(self, payment: Payment) -> PaymentPoll:
        """Return when a known payment was heard of and is asked about; `save` keeps it."""
        return self._polls[payment.id]

    def known(self, payment_id: str) -> Payment | None:
        """Return a payment, or None where there is none."""
        if payment_id not in self._by_id:
            self.load((), [payment_id])
        return self._by_id.get(payment_id)

    def knows_ref(self, account: str, kinds: Sequence[str], ref: str) -> bool:
        """Return whether a payment with this provider's id is in memory."""
        return any(self._by_ref.get((account, kind, ref)) is not None for kind in kinds)

    def find_by_ref(self, account: str, kinds: Sequence[str], ref: str) -> Payment | None:
        """Return the payment with this provider's id, of the first kind that has one."""
        for kind in kinds:
            key = (account, kind, ref)
            if key not in self._by_ref:
                self.load([key], ())
            found = self._by_ref[key]
            if found is not None:
                return found
        return None

    def find_by_name(self, account: str, kinds: Sequence[str], name: str) -> Payment | None:
        """Return the payment with this further name, of the first kind that has one."""
        self.load_names([(account, kind, name) for kind in kinds])
        found = (self._by_name[account, kind, name] for kind in kinds)
        return next((payment for payment in found if payment is not None), None)

    def find_wish(self, payment: Payment, reference: str) -> Payment | None:
        """Return the wish of this reference that the payment may be: one without an id."""
        return self.find_unbound(payment.account, [payment.kind], reference)

    def release(self, payment: Payment, ref: str) -> None:
        """Write that the payment has this id no more, so that another may have it."""
        self.save(payment)
        self.flush()
        self._by_ref[payment.account, payment.kind, ref] = None

    def add_name(self, payment: Payment, name: str) -> None:
        """Index a further name of a payment, with the next flush."""
        self._by_name[payment.account, payment.kind, name] = payment
        self._names.append((payment.account, payment.kind, name, payment.id))

    def find_unbound(self, account: str, kinds: Sequence[str], reference: str) -> Payment | None:
        """Return the newest payment of that reference without a provider's id."""
        for kind in kinds:
            key = (account, kind, reference)
            if not self._is_unbound_known(key):
                self.flush()
                self._unbound.pop(key, None)
                self.load_unbound([key])
            newest: Payment | None = None
            for payment in (*self._added.get(key, ()), self._unbound.get(key)):
                if payment is not None and payment.provider_ref is None and (not newest or payment.id > newest.id):
                    newest = payment
            if newest is not None:
                return newest
        return None

    def _is_unbound_known(self, key: Key) -> bool:
        """Return False where the newest got an id since: there may be an older one."""
        if key not in self._unbound:
            return False
        newest = self._unbound[key]
        return newest is None or newest.provider_ref is None

    def namesakes(self, payment: Payment, kinds: Sequence[str], reference: str) -> list[Payment]:
        """Return payments of these kinds that had the reference before this one.

        The oldest of each kind, and the oldest that has not ended unpaid.
        """
        found: dict[str, None] = {}
        for kind in kinds:
            key = (payment.account, kind, reference)
            if self._renamed.get(key, set()) - {payment.id}:
                self.flush()
                self._namesakes.pop(key, None)
            self.load_namesakes([key])
            found |= dict.fromkeys(self._namesakes[key])
        return [self.get(each) for each in found if each < payment.id]

    def find_by_reference(self, account: str, kinds: Sequence[str], reference: str) -> Payment | None:
        """Return the newest payment of that reference."""
        return self._find_newest(account, kinds, reference, batches.REFERENCE)

    def find_by_alias(self, account: str, kinds: Sequence[str], alias: str) -> Payment | None:
        """Return the newest payment with this alias."""
        return self._find_newest(account, kinds, alias, batches.ALIAS)

    def _find_newest(self, account: str, kinds: Sequence[str], name: str, condition: str) -> Payment | None:
        self.flush()
        found = batches.newest(self._unit, [(account, kind, name) for kind in kinds], condition)
        for kind in kinds:
            payment_id = found[account, kind, name]
            if payment_id is not None:
                return self.get(payment_id)
        return None

    def has_unbound(self, account: str, kinds: Sequence[str], since: datetime) -> bool:
        """Return whether a create call of these kinds may be unanswered still."""
        if any(batches.is_unbound(payment, account, kinds, since) for payment in self._begun):
            return True
        key = (account, tuple(sorted(kinds)), since)
        if key not in self._waiting:
            self._waiting[key] = batches.unbound_ids(self._unit, account, kinds, since, _MAX_UNANSWERED_CREATES)
        waiting = self._waiting[key]
        if any(self._still_waits(payment_id) for payment_id in waiting):
            return True
        if len(waiting) < _MAX_UNANSWERED_CREATES:
            return False
        self.flush()
        return payments.has_unbound(self._unit, account, kinds, since)

    def _still_waits(self, payment_id: str) -> bool:
        payment = self._by_id.get(payment_id)
        return payment is None or (payment.provider_ref is None and payment.state is None)

    # -- changing

    def add(self, payment: Payment) -> None:
        """Add a new payment."""
        self._by_id[payment.id] = self._new[payment.id] = payment
        self._polls[payment.id] = payment_polls.begin(payment.id, payment.account, self.now)
        self._absent.discard(payment.id)
        self._owed_known.add(payment.id)
        if payment.provider_ref is None:
            self._begun.append(payment)
        self._index(payment)

    def save(self, payment: Payment) -> None:
        """Save the payment and its poll with the next flush, as they are then."""
        if payment.id not in self._new:
            self._changed[payment.id] = payment
        self._index(payment)

    def _index(self, payment: Payment) -> None:
        if payment.reference is not None:
            key = (payment.account, payment.kind, payment.reference)
            self._renamed.setdefault(key, set()).add(payment.id)
        if payment.provider_ref is not None:
            self._by_ref[payment.account, payment.kind, payment.provider_ref] = payment
        elif payment.reference is not None:
            found = self._added.setdefault((payment.account, payment.kind, payment.reference), [])
            if all(each is not payment for each in found):
                found.append(payment)

    def ask_at(self, payment: Payment, when: datetime, priority: PollPriority) -> bool:
        """Set the next question to this instant, unless it is sooner; return if set."""
        poll = self.poll_of(payment)
        at = poll.next_poll_at
        is_later = at is None or at > when
        if payment.provider_ref is None or not (is_later or poll.poll_priority > priority):
            return False
        if is_later:
            poll.next_poll_at = when
        poll.poll_priority = min(poll.poll_priority, int(priority))
        self.save(payment)
        return True

    def ask_account(self, account: str, phases: Sequence[str], limit: int) -> int:
        """Ask about the account's newest payments of these phases now; count them."""
        self.flush()
        found = payment_polls.newest_asked(self._unit, account, phases, self.now, limit)
        here = [self._by_id[payment_id] for payment_id in found if payment_id in self._by_id]
        others = [payment_id for payment_id in found if payment_id not in self._by_id]
        moved = sum(self.ask_at(payment, self.now, PollPriority.HINT) for payment in here)
        return moved + payment_polls.ask_at(self._unit, others, self.now, PollPriority.HINT)

    def ask_about_id(self, account: str, kind: str, ref: str) -> bool:
        """Have the provider asked about an unknown id; return False if too many wait."""
        return hints.add(self._unit, account, kind, ref, self.now)

    def append(self, transition: Transition) -> None:
        """Append the transition to the payment's chain."""
        self._transitions.append(transition)

    def is_owed(self, payment_id: str, effect: str, sink: str, occurrence: int) -> bool:
        """Return whether the payment owes this effect already."""
        if payment_id not in self._owed_known:
            others = [each for each in self._read if each not in self._owed_known]
            for one, number in batches.occurrences(self._unit, others).items():
                self._owed.add(one)
                self._owed_last[one[0]] = max(number, self._owed_last.get(one[0], 0))
            self._owed_known.update(others)
        return (payment_id, effect, sink, occurrence) in self._owed

    def next_owed(self, payment_id: str) -> int:
        """Return the number of the payment's next effect; call `is_owed` before."""
        return self._owed_last.get(payment_id, 0) + 1

    def owe(self, message: OutboxMessage) -> None:
        """Owe the effect; the caller has checked `is_owed`."""
        if message.payment_id is not None:
            self._owed.add((message.payment_id, message.effect, message.sink, message.occurrence))
            self._owed_last[message.payment_id] = message.number
        self._outbox.append(message)

    def owed_under(self, webhook_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that outbox messages have."""
        return outbox.owed_under(self._unit, webhook_ids)

    def owe_of_account(
        self, account: str, effect: str, sink: str, cause: str, payload: str, webhook_id: str
    ) -> str | None:
        """Owe an effect about an account once for each cause; return its id, or None."""
        return outbox.owe(
            self._unit,
            payment_id=None,
            account=account,
            effect=effect,
            sink=sink,
            occurrence=0,
            cause=cause,
            payload=payload,
            now=self.now,
            webhook_id=webhook_id,
        )

    def finish(self, message: InboxMessage) -> None:
        """Save the decision about the message with the next flush."""
        if message.awaits is not None and (message.account, message.awaits) in self._reopened:
            self.flush()  # it was parked after those were reopened, and stays parked
        self._finished.append(message)

    def postpone(self, message: InboxMessage, until: datetime, why: str) -> None:
        """Postpone the message, without counting an attempt."""
        self._postponed.append((message, until, why))

    def reopen_awaiting(self, account: str, awaited: Iterable[str]) -> None:
        """Decide messages again that are parked for a payment with these names."""
        self._reopened.update(dict.fromkeys((account, name) for name in awaited))

    # -- writing

    def flush(self) -> None:
        """Write all changes. Raises LeaseLost or IntegrityError if another was quicker."""
        unit = self._unit
        new, changed = list(self._new.values()), list(self._changed.values())
        if new:
            batches.add(unit, new)
            batches.add_polls(unit, [self._polls[payment.id] for payment in new])
        if changed:
            batches.change(unit, [(payment, self._read[payment.id]) for payment in changed])
            polls = [(self._polls[payment.id], self._polls_read[payment.id]) for payment in changed]
            batches.change_polls(unit, polls)
        if self._names:
            batches.add_names(unit, self._names)
        for payment in (*new, *changed):
            self._read[payment.id] = batches.as_read(payment)
            self._polls_read[payment.id] = batches.poll_as_read(self._polls[payment.id])
        if self._transitions:
            batches.append(unit, self._transitions)
        if self._outbox:
            outbox.owe_all(unit, self._outbox)
        parked = [(m.account, m.awaits) for m in self._finished if m.awaits is not None]
        advisory_locks.hold(unit, (*parked, *self._reopened), self._held)
        if self._finished:
            batches.finish(unit, self._finished)
        self._reopened.update(dict.fromkeys(advisory_locks.known_meanwhile(unit, parked)))
        if self._postponed:
            batches.postpone(unit, self._postponed)
        if self._reopened:
            batches.reopen_awaiting(unit, list(self._reopened), self.now)
        self._new, self._changed, self._reopened = {}, {}, {}
        self._names = []
        self._transitions, self._outbox, self._finished, self._postponed = [], [], [], []
