"""Measurements of webhook delivery: their input, daily figures and conclusions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from statemachine import histograms
from statemachine.phases import Source
from storage import inbox
from storage.columns import table_of
from storage.database import Unit, values
from storage.errors import LeaseLost
from storage.tables import InboxMessage, Payment, RejectedDelivery, Transition
from storage.tables_inbox import Redelivery
from storage.tables_support import PushQuality, PushWatch
from storage.types import InboxStatus

_quality = table_of(PushQuality)
_watch = table_of(PushWatch)

#: Days that are looked back upon; one that is so long ago weighs 2^-(30 / HALVED) of today.
_DAYS: Final = 30
#: After so many days figures weigh half.
HALVED: Final = 2.0

#: Changes that are taken to be lost before any is seen: trust has to be earned by several times as many.
_DOUBT: Final = 5.0

#: So many changes of an event found by asking, and never a push of it, say that it is not pushed at all: were it
#: pushed and four in five were lost, that would be a chance of 0.8^20, one in a hundred.
ENOUGH: Final = 20


@dataclass(frozen=True, slots=True)
class PushWorth:
    """The reliability of webhooks for one account and kind."""

    loss: float | None  #: share of changes that no push tells of; near 1 on few samples; None: there is no push
    lag_p99: timedelta | None  #: from the change at the provider to receipt; None where the provider tells no time
    samples: int  #: changes that this rests on, of the last 30 days


@dataclass(frozen=True, slots=True)
class Share:
    """The share of lost events, recent days weighing more."""

    lost: float
    changes: float
    samples: int  #: the changes without their weights

    @property
    def loss(self) -> float | None:
        """The share; None of nothing."""
        return self.lost / self.changes if self.changes else None


def worth(unit: Unit, account: str, kind: str, now: datetime) -> PushWorth:
    """Measure the reliability of one kind's webhooks over the last days.

    A few short reads, for once a minute rather than once a payment.

    Events that are never pushed do not count: of them nothing is lost. `loss` begins at 1 and comes down to the true
    share as samples come in; it is None where no push of the kind was seen at all.
    """
    today = now.date()
    rows = between(unit, account, today - timedelta(days=_DAYS), today, kind=kind)
    if not any(row.deliveries for row in rows):
        return PushWorth(None, None, 0)
    share = share_of(rows, today)
    lags = histograms.merge_bins((row.lags, weight(row.day, today)) for row in rows)
    return PushWorth(
        loss=(share.lost + _DOUBT) / (share.changes + _DOUBT),
        lag_p99=histograms.bin_quantile(lags, 0.99),
        samples=share.samples,
    )


def share_of(rows: Iterable[PushQuality], today: date) -> Share:
    """Return the lost share of these figures, without events that are never pushed."""
    every = list(rows)
    pushed = pushed_events(every)
    lost = changes = 0.0
    samples = 0
    for row in every:
        if (row.kind, row.event) in pushed:
            found = row.pushed + row.late + row.lost
            lost += weight(row.day, today) * row.lost
            changes += weight(row.day, today) * found
            samples += found
    return Share(lost, changes, samples)


def pushed_events(rows: Iterable[PushQuality]) -> set[tuple[str, str]]:
    """Kind and event of those that a push has told of, however rarely."""
    return {(row.kind, row.event) for row in rows if row.event and (row.deliveries or row.pushed or row.late)}


def weight(day: date, today: date) -> float:
    """1 for today, and half for each two days before."""
    return float(0.5 ** (max((today - day).days, 0) / HALVED))


def between(unit: Unit, account: str | None, since: date, until: date, *, kind: str | None = None) -> list[PushQuality]:
    """Return the figures of these days, by account, kind, event and day.

    Both days are included; every account where None.
    """
    query = select(_quality).where(_quality.c.day >= since, _quality.c.day <= until)
    for column, wanted in ((_quality.c.account, account), (_quality.c.kind, kind)):
        if wanted is not None:
            query = query.where(column == wanted)
    order = (_quality.c.account, _quality.c.kind, _quality.c.event, _quality.c.day)
    return unit.all(PushQuality, query.order_by(*order))


def watches(unit: Unit) -> dict[str, PushWatch]:
    """Return how far each account was measured, and its active alarms."""
    return {watch.account: watch for watch in unit.all(PushWatch, select(_watch).order_by(_watch.c.account))}


def standing(unit: Unit) -> dict[str, Mapping[str, Any]]:
    """Return the active alarms, by account and alarm.

    Each has `since`, `noticed`, `reason` and `details`.
    """
    return {account: watch.alarms for account, watch in watches(unit).items() if watch.alarms}


_inbox = table_of(InboxMessage)
_redelivery = table_of(Redelivery)
_payment = table_of(Payment)
_transition = table_of(Transition)
_rejected = table_of(RejectedDelivery)

#: What the provider sends by itself.
PUSHED: Final = (Source.WEBHOOK.value, Source.CALLBACK.value)

#: The columns that are numbers, and are added.
COUNTED: Final = ("pushed", "late", "lost", "deliveries", "duplicates", "reordered", "rejected")

#: Nobody puts measuring off for longer: what lies beyond was set by a clock that was wrong.
_MAX_CLAIM_DELAY: Final = timedelta(days=1)

#: How long a message may take from its id to its commit and its decision. What is younger is not measured yet, so
#: that the watermark passes nothing that is still on its way.
SETTLES: Final = timedelta(minutes=2)

#: A message that cannot be decided is measured as it is, and does not hold up those behind it for longer.
_STUCK: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rejected delivery and the time of its receipt."""

    id: str
    received_at: datetime


def claim(unit: Unit, account: str, now: datetime, lease: timedelta) -> PushWatch | None:
    """Claim the account's watch under a lease; return it and its token, or None."""
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    fresh = values(PushWatch(account=account, due_at=now))
    unit.execute(dialect.insert(_watch).values(fresh).on_conflict_do_nothing())
    is_due = or_(_watch.c.due_at <= now, _watch.c.due_at > now + _MAX_CLAIM_DELAY)
    query = select(_watch).where(_watch.c.account == account, is_due)
    found = unit.first(PushWatch, query.with_for_update() if unit.dialect == "postgresql" else query)
    if found is not None:
        found.due_at, found.claim_token = now + lease, found.claim_token + 1
        changes = {"due_at": found.due_at, "claim_token": found.claim_token}
        unit.execute(update(_watch).where(_watch.c.account == account).values(**changes))
    return found


def keep(unit: Unit, watch: PushWatch) -> None:
    """Store every column of the watch; raises LeaseLost after a takeover."""
    done = unit.execute(
        update(_watch)
        .where(_watch.c.account == watch.account, _watch.c.claim_token == watch.claim_token)
        .values(**values(watch))
    )
    if done.rowcount != 1:
        raise LeaseLost


def pushes_after(
    unit: Unit, account: str, after: str | None, now: datetime, limit: int
) -> tuple[list[InboxMessage], str | None, bool]:
    """Return the account's webhooks among the next `limit` messages.

    Also up to which id they can be measured, and whether that is all.

    Measured can be what is decided, and so old that everything that was recorded before it can be seen. The rest is
    found all the same, to be known of. Every account's messages are passed over, since only so a quiet account's
    watermark moves on.
    """
    columns = ("id", "account", "source", "status", "received_at", "decided_at")
    whole = inbox.WHOLE
    query = select(*(whole.c[name] for name in columns)).order_by(whole.c.id).limit(limit)
    rows = unit.each(query.where(whole.c.id > after) if after else query)
    wanted: list[str] = []
    is_whole = True
    for row in rows:
        is_ours = row.account == account and row.source in PUSHED
        is_whole = is_whole and _is_settled(row, now, must_be_decided=is_ours)
        if is_whole:
            after = row.id
        if is_ours:
            wanted.append(row.id)
    found = [message for _, message in sorted(inbox.get_many(unit, wanted).items())]
    return found, after, len(rows) < limit or not is_whole


def _is_settled(row: Any, now: datetime, *, must_be_decided: bool) -> bool:
    """Return the condition of a message that is old enough to be measured.

    One that was redeemed from quarantine is older than its id, so that its decision's time counts too.
    """
    if must_be_decided and row.status == InboxStatus.PENDING:
        return bool(row.received_at <= now - _STUCK)
    return bool(max(row.received_at, row.decided_at or row.received_at) <= now - SETTLES)


def pushes_about(unit: Unit, payment_ids: Sequence[str]) -> list[InboxMessage]:
    """Return every webhook decided about one of these payments, in order of arrival.

    An event of a journal is one where its webhook came after it, as a redelivery.
    """
    is_again = select(_redelivery.c.message_id).where(_redelivery.c.message_id == _inbox.c.id).exists()
    is_push = or_(_inbox.c.source.in_(PUSHED), and_(_inbox.c.source == Source.JOURNAL.value, is_again))
    about = inbox.decided_about(payment_ids)
    ids = list(unit.execute(select(_inbox.c.id).where(_inbox.c.id.in_(about), is_push)).scalars())
    return [message for _, message in sorted(inbox.get_many(unit, ids).items())]


def transitions_after(
    unit: Unit, account: str, after: str | None, until: datetime, limit: int
) -> tuple[list[tuple[Transition, str]], str | None, bool]:
    """Return the account's among the next transitions recorded by `until`.

    With their payment's kind.

    Also the id of the last that was passed over, of whatever account, and whether that is all.
    """
    query = (
        select(_transition.c.id, _transition.c.recorded_at, _payment.c.account, _payment.c.kind)
        .join(_payment, _payment.c.id == _transition.c.payment_id)
        .order_by(_transition.c.id)
        .limit(limit)
    )
    rows = unit.each(query.where(_transition.c.id > after) if after else query)
    kinds: dict[str, str] = {}
    for row in rows:
        if row.recorded_at > until:
            break
        after = row.id
        if row.account == account:
            kinds[row.id] = row.kind
    wanted = select(_transition).where(_transition.c.id.in_(list(kinds))).order_by(_transition.c.id)
    found = [(transition, kinds[transition.id]) for transition in unit.all(Transition, wanted)]
    return found, after, len(rows) < limit or rows[-1].id != after


def last_push_at(unit: Unit, account: str, after: str | None) -> datetime | None:
    """Return when the account's last webhook after an id came, to within a few."""
    query = select(_inbox.c.received_at).where(_inbox.c.account == account, _inbox.c.source.in_(PUSHED))
    latest = query.where(_inbox.c.id > after) if after else query
    return max((row[0] for row in unit.each(latest.order_by(_inbox.c.id.desc()).limit(10))), default=None)


def redelivered(
    unit: Unit, account: str, after: datetime | None, until: datetime, limit: int
) -> tuple[list[InboxMessage], datetime]:
    """Return the account's webhooks last redelivered in a range of time.

    Also up to when these are.

    That is `until`, or earlier where there are more than `limit`.
    """
    at = _redelivery.c.last_redelivered_at
    query = select(_inbox.c.id).join(_redelivery, _redelivery.c.message_id == _inbox.c.id)
    query = query.where(_redelivery.c.account == account, _inbox.c.source.in_(PUSHED), at <= until)
    query = query.where(at > after) if after is not None else query
    ids = list(unit.execute(query.order_by(at).limit(limit)).scalars())
    messages = inbox.get_many(unit, ids)
    found = [messages[each] for each in ids if each in messages]
    if len(found) < limit:
        return found, until
    last = found[-1].last_redelivered_at
    whole = [message for message in found if message.last_redelivered_at != last]  # of that instant there may be more
    reached = (whole or found)[-1].last_redelivered_at or until
    return whole or found, reached


def last_redelivered_at(unit: Unit, account: str) -> datetime | None:
    """Return when one of the account's messages was last redelivered."""
    at = _redelivery.c.last_redelivered_at
    query = select(at).join(_inbox, _inbox.c.id == _redelivery.c.message_id)
    pushed = _inbox.c.source.in_((*PUSHED, Source.JOURNAL.value))
    query = query.where(_redelivery.c.account == account, pushed)
    found: datetime | None = next((row[0] for row in unit.each(query.order_by(at.desc()).limit(10))), None)
    return found


def rejected_after(unit: Unit, account: str, after: str | None, limit: int) -> list[Rejection]:
    """Return the account's next rejected deliveries after an id, without bodies.

    Only what is still in quarantine.
    """
    query = select(_rejected.c.id, _rejected.c.received_at).where(_rejected.c.account == account)
    rows = unit.each((query.where(_rejected.c.id > after) if after else query).order_by(_rejected.c.id).limit(limit))
    return [Rejection(row.id, row.received_at) for row in rows]


def rejected_bodies(unit: Unit, rejected_ids: Sequence[str]) -> list[RejectedDelivery]:
    """Return these rejected deliveries, as far as they are still in quarantine."""
    query = select(_rejected).where(_rejected.c.id.in_(rejected_ids)).order_by(_rejected.c.id)
    return unit.all(RejectedDelivery, query)


def kinds_of(unit: Unit, payment_ids: Sequence[str]) -> dict[str, str]:
    """Return the kinds of the existing payments, by id."""
    rows = unit.each(select(_payment.c.id, _payment.c.kind).where(_payment.c.id.in_(payment_ids)))
    return {row.id: row.kind for row in rows}


def known_by(unit: Unit, account: str, kinds: Sequence[str], names: Sequence[str]) -> set[str]:
    """Return ids of the account's payments with one of these names.

    The provider's name or the merchant's.
    """
    if not names:
        return set()
    query = select(_payment.c.id).where(_payment.c.account == account, _payment.c.kind.in_(kinds))
    found: set[str] = set()
    for column in (_payment.c.provider_ref, _payment.c.reference):
        found |= set(unit.execute(query.where(column.in_(names)).limit(len(names))).scalars())
    return found


def add(unit: Unit, account: str, rows: Mapping[tuple[Any, ...], PushQuality]) -> None:
    """Add figures to the account's, by kind, event and day.

    The caller holds the account's claim, and keeps the watermark in the same unit of work.
    """
    days = {row.day for row in rows.values()}
    query = select(_quality).where(_quality.c.account == account, _quality.c.day.in_(days))
    kept = {(row.kind, row.event, row.day): row for row in unit.all(PushQuality, query)}
    for key, new in rows.items():
        old = kept.get(key)
        if old is None:
            unit.execute(insert(_quality), values(new))
            continue
        changes: dict[str, Any] = {name: getattr(old, name) + getattr(new, name) for name in COUNTED}
        for name in ("lags", "skews"):
            counts = dict(getattr(old, name))
            for bin_name, count in getattr(new, name).items():
                counts[bin_name] = counts.get(bin_name, 0) + count
            changes[name] = counts
        same = (_quality.c.account == account, _quality.c.kind == new.kind, _quality.c.event == new.event)
        unit.execute(update(_quality).where(*same, _quality.c.day == new.day).values(**changes))


#: Signed times are earlier than receipt by what the delivery took: of ten, the quickest tells the clocks' difference.
_QUICKEST: Final = 0.9


class Pushing(StrEnum):
    """The answer to the question if the provider pushes an event at all."""

    YES = "yes"  #: a push has told of it
    NO = "no"  #: found by asking again and again, and never a push: not lost, but not pushed
    UNKNOWN = "unknown"  #: no push yet, and too few changes to say that there is none


@dataclass(frozen=True, slots=True)
class EventFigures:
    """The webhook figures of one event; `changes` is pushed, late and lost together."""

    kind: str
    event: str
    pushing: Pushing
    pushed: int
    late: int
    lost: int
    loss: float | None  #: share of lost; None where it is not known to be pushed, or nothing has changed
    deliveries: int
    duplicates: int
    reordered: int
    lag_p50: timedelta | None  #: from the change by the provider's clock to receipt by ours; None where it tells none
    lag_p99: timedelta | None

    @property
    def changes(self) -> int:
        """The number of changes that were judged."""
        return self.pushed + self.late + self.lost


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """The webhook figures of one account, and its active alarms."""

    account: str
    measured_at: datetime | None
    heard_at: datetime | None  #: the last verified delivery
    deliveries: int
    rejected: int  #: at least: what was pushed out of quarantine or turned away unread is not known
    skew: timedelta | None  #: the provider's clock less ours, to about a second; None where it signs no time
    events: list[EventFigures] = field(default_factory=list)
    alarms: Mapping[str, Any] = field(default_factory=dict)


def figures(unit: Unit, account: str | None, since: date, until: date) -> list[AccountFigures]:
    """Return the figures of whole UTC days, of one account or all ever measured.

    Both days are included.
    """
    found: list[AccountFigures] = []
    for name, watch in watches(unit).items():
        if account in (None, name):
            every = between(unit, name, date.min, until)
            found.append(_of_account(watch, every, [row for row in every if row.day >= since]))
    return found


def _of_account(watch: PushWatch, every: list[PushQuality], rows: list[PushQuality]) -> AccountFigures:
    pushing = _pushing(every)
    events: dict[tuple[str, str], list[PushQuality]] = {}
    for row in rows:
        if row.kind or row.deliveries:
            events.setdefault((row.kind, row.event), []).append(row)
    skews = histograms.merge_bins((row.skews, 1.0) for row in rows)
    return AccountFigures(
        account=watch.account,
        measured_at=watch.measured_at,
        heard_at=watch.heard_at,
        deliveries=sum(row.deliveries for row in rows),
        rejected=sum(row.rejected for row in rows),
        skew=histograms.bin_quantile(skews, _QUICKEST),
        events=[_of_event(key, found, pushing.get(key)) for key, found in sorted(events.items())],
        alarms=watch.alarms,
    )


def _pushing(every: Iterable[PushQuality]) -> dict[tuple[str, str], Pushing]:
    rows = list(every)
    pushed = pushed_events(rows)
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.event:
            found[row.kind, row.event] = found.get((row.kind, row.event), 0) + row.lost
    absent = {key: Pushing.NO if lost >= ENOUGH else Pushing.UNKNOWN for key, lost in found.items()}
    return absent | dict.fromkeys(pushed, Pushing.YES)


def _of_event(key: tuple[str, str], rows: list[PushQuality], pushing: Pushing | None) -> EventFigures:
    pushed, late, lost = (sum(getattr(row, name) for row in rows) for name in ("pushed", "late", "lost"))
    changes = pushed + late + lost
    lags = histograms.merge_bins((row.lags, 1.0) for row in rows)
    return EventFigures(
        kind=key[0],
        event=key[1],
        pushing=pushing or Pushing.YES,
        pushed=pushed,
        late=late,
        lost=lost,
        loss=lost / changes if changes and pushing is Pushing.YES else None,
        deliveries=sum(row.deliveries for row in rows),
        duplicates=sum(row.duplicates for row in rows),
        reordered=sum(row.reordered for row in rows),
        lag_p50=histograms.bin_quantile(lags, 0.5),
        lag_p99=histograms.bin_quantile(lags, 0.99),
    )
