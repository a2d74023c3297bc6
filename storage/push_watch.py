"""What measuring push reads, and how far it came: each account is measured by one process at a time.

What is read is read outside of any write; figures and watermarks are kept together, so that a crash loses and
doubles nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from statemachine.phases import Source
from storage.engine import Unit, values
from storage.errors import LeaseLost
from storage.tables import InboxMessage, InboxMessageTable, PaymentTable, RejectedDelivery, Transition, TransitionTable
from storage.tables_asking import PushQuality, PushWatch
from storage.types import InboxStatus

_watch = PushWatch.__table__  # type: ignore[attr-defined]
_quality = PushQuality.__table__  # type: ignore[attr-defined]
_inbox = InboxMessageTable.__table__  # type: ignore[attr-defined]
_payment = PaymentTable.__table__  # type: ignore[attr-defined]
_transition = TransitionTable.__table__  # type: ignore[attr-defined]
_rejected = RejectedDelivery.__table__  # type: ignore[attr-defined]

#: What the provider sends by itself.
PUSHED: Final = (Source.WEBHOOK.value, Source.CALLBACK.value)

#: The columns that are numbers, and are added.
COUNTED: Final = ("pushed", "late", "lost", "deliveries", "duplicates", "reordered", "rejected")

#: Nobody puts measuring off for longer: what lies beyond was set by a clock that was wrong.
_LONGEST: Final = timedelta(days=1)

#: How long a message may take from its id to its commit and its decision. What is younger is not measured yet, so
#: that the watermark passes nothing that is still on its way.
SETTLES: Final = timedelta(minutes=2)

#: A message that cannot be decided is measured as it is, and does not hold up those behind it for longer.
_STUCK: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Rejection:
    """That a delivery was rejected, and when it came."""

    id: str
    received_at: datetime


def claim(unit: Unit, account: str, now: datetime, lease: timedelta) -> PushWatch | None:
    """The account's watch, nobody else's until the lease ends, with the token that `keep` demands; None if not due."""
    dialect = sqlite if unit.dialect == "sqlite" else postgresql
    fresh = values(PushWatch(account=account, due_at=now))
    unit.execute(dialect.insert(_watch).values(fresh).on_conflict_do_nothing())
    is_due = or_(_watch.c.due_at <= now, _watch.c.due_at > now + _LONGEST)
    query = select(_watch).where(_watch.c.account == account, is_due)
    found = unit.first(PushWatch, query.with_for_update() if unit.dialect == "postgresql" else query)
    if found is not None:
        found.due_at, found.claim_token = now + lease, found.claim_token + 1
        changes = {"due_at": found.due_at, "claim_token": found.claim_token}
        unit.execute(update(_watch).where(_watch.c.account == account).values(**changes))
    return found


def keep(unit: Unit, watch: PushWatch) -> None:
    """Every column of the watch is as given; raises LeaseLost where somebody else has claimed it since."""
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
    """The account's pushes among the next `limit` messages; up to which id they can be measured; whether that is all.

    Measured can be what is decided, and so old that everything that was recorded before it can be seen. The rest is
    found all the same, to be known of. Every account's messages are passed over, since only so a quiet account's
    watermark moves on.
    """
    columns = ("id", "account", "source", "status", "received_at", "decided_at")
    query = select(*(_inbox.c[name] for name in columns)).order_by(_inbox.c.id).limit(limit)
    rows = unit.each(query.where(_inbox.c.id > after) if after else query)
    wanted: list[str] = []
    is_whole = True
    for row in rows:
        is_ours = row.account == account and row.source in PUSHED
        is_whole = is_whole and _is_settled(row, now, must_be_decided=is_ours)
        if is_whole:
            after = row.id
        if is_ours:
            wanted.append(row.id)
    found = unit.all(InboxMessage, select(_inbox).where(_inbox.c.id.in_(wanted)).order_by(_inbox.c.id))
    return found, after, len(rows) < limit or not is_whole


def _is_settled(row: Any, now: datetime, *, must_be_decided: bool) -> bool:
    """One that was redeemed from quarantine is older than its id, so that its decision's time counts too."""
    if must_be_decided and row.status == InboxStatus.PENDING:
        return bool(row.received_at <= now - _STUCK)
    return bool(max(row.received_at, row.decided_at or row.received_at) <= now - SETTLES)


def pushes_about(unit: Unit, payment_ids: Sequence[str]) -> list[InboxMessage]:
    """Every push that was decided to be about one of these payments, in order of arrival."""
    query = select(_inbox).where(_inbox.c.payment_id.in_(payment_ids), _inbox.c.source.in_(PUSHED))
    return unit.all(InboxMessage, query.order_by(_inbox.c.id))


def transitions_after(
    unit: Unit, account: str, after: str | None, until: datetime, limit: int
) -> tuple[list[tuple[Transition, str]], str | None, bool]:
    """The account's among the next `limit` transitions that were recorded by `until`, with their payment's kind.

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
    """When the last of the account's pushes with an id above this one came; one of the last few may be older."""
    query = select(_inbox.c.received_at).where(_inbox.c.account == account, _inbox.c.source.in_(PUSHED))
    latest = query.where(_inbox.c.id > after) if after else query
    return max((row[0] for row in unit.each(latest.order_by(_inbox.c.id.desc()).limit(10))), default=None)


def redelivered(
    unit: Unit, account: str, after: datetime | None, until: datetime, limit: int
) -> tuple[list[InboxMessage], datetime]:
    """The account's pushes that were last sent again after one instant and up to another, and up to which these are.

    That is `until`, or earlier where there are more than `limit`.
    """
    at = _inbox.c.last_redelivered_at
    query = select(_inbox).where(_inbox.c.account == account, _inbox.c.source.in_(PUSHED), at.is_not(None), at <= until)
    query = query.where(at > after) if after is not None else query
    found = unit.all(InboxMessage, query.order_by(at).limit(limit))
    if len(found) < limit:
        return found, until
    last = found[-1].last_redelivered_at
    whole = [message for message in found if message.last_redelivered_at != last]  # of that instant there may be more
    reached = (whole or found)[-1].last_redelivered_at or until
    return whole or found, reached


def last_redelivered_at(unit: Unit, account: str) -> datetime | None:
    """When one of the account's messages was last sent again."""
    at = _inbox.c.last_redelivered_at
    query = select(at).where(_inbox.c.account == account, at.is_not(None), _inbox.c.source.in_(PUSHED))
    found: datetime | None = next((row[0] for row in unit.each(query.order_by(at.desc()).limit(10))), None)
    return found


def rejected_after(unit: Unit, account: str, after: str | None, limit: int) -> list[Rejection]:
    """What is still in quarantine of the account's next rejections after a given id, without their bodies."""
    query = select(_rejected.c.id, _rejected.c.received_at).where(_rejected.c.account == account)
    rows = unit.each((query.where(_rejected.c.id > after) if after else query).order_by(_rejected.c.id).limit(limit))
    return [Rejection(row.id, row.received_at) for row in rows]


def rejected_bodies(unit: Unit, rejected_ids: Sequence[str]) -> list[RejectedDelivery]:
    """These rejected deliveries, as far as they are still in quarantine."""
    query = select(_rejected).where(_rejected.c.id.in_(rejected_ids)).order_by(_rejected.c.id)
    return unit.all(RejectedDelivery, query)


def kinds_of(unit: Unit, payment_ids: Sequence[str]) -> dict[str, str]:
    """The kinds of those of the payments that exist, by id."""
    rows = unit.each(select(_payment.c.id, _payment.c.kind).where(_payment.c.id.in_(payment_ids)))
    return {row.id: row.kind for row in rows}


def known_by(unit: Unit, account: str, kinds: Sequence[str], names: Sequence[str]) -> set[str]:
    """Ids of the account's payments that one of these names means: the provider's or the merchant's."""
    if not names:
        return set()
    query = select(_payment.c.id).where(_payment.c.account == account, _payment.c.kind.in_(kinds))
    found: set[str] = set()
    for column in (_payment.c.provider_ref, _payment.c.reference):
        found |= set(unit.execute(query.where(column.in_(names)).limit(len(names))).scalars())
    return found


def add(unit: Unit, account: str, rows: Mapping[tuple[Any, ...], PushQuality]) -> None:
    """These figures are added to those that are kept of the account, by kind, event and day.

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
