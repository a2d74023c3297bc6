"""One batch of each rule that deletes rows; the caller commits it with its record."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, not_, select, text, tuple_, update

from statemachine.phases import Phase
from storage.columns import table_of
from storage.database import Unit
from storage.tables import (
    DeliveryAttempt,
    InboxMessage,
    KnownDelivery,
    OutboxQueueTable,
    Payment,
    RejectedDelivery,
)
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.tables_support import Reconciliation, RetentionRun
from storage.types import OutboxStatus, ReconciliationStatus

_inbox = table_of(InboxMessage)
_inbox_queue = table_of(QueuedMessage)
_decision = table_of(RecordedDecision)
_payment = table_of(Payment)
_queue = table_of(OutboxQueueTable)
_attempt = table_of(DeliveryAttempt)
_known = table_of(KnownDelivery)
_rejected = table_of(RejectedDelivery)
_reconciliation = table_of(Reconciliation)

#: How many messages may wait for the end of their payments before the rule goes no further.
HELD_BACK_LIMIT: Final = 2000

#: Pages of PostgreSQL's that one batch of known deliveries reads.
_PAGES: Final = 64

_NIL: Final = "00000000-0000-0000-0000-000000000000"

_OPEN: Final = (Phase.OPEN.value, Phase.PROCESSING.value, Phase.AUTHORISED.value)


def is_over(until: datetime) -> ColumnElement[bool]:
    """Return whether a payment is finished: no money expected, no review, no change."""
    return and_(_payment.c.phase.not_in(_OPEN), _payment.c.review.is_(None), _payment.c.changed_at < until)


def scrub(unit: Unit, run: RetentionRun, limit: int) -> bool:
    """Empty the bodies of the next messages; return whether that was the last batch.

    Left are those that are not decided for good, and those that any payment rests on that is not over: the run keeps
    their ids, and the next run looks at them first.
    """
    query = select(_inbox.c.id, _inbox_queue.c.status, _inbox.c.scrubbed_at).order_by(_inbox.c.id)
    query = query.outerjoin(_inbox_queue, _inbox_queue.c.message_id == _inbox.c.id)
    is_again = run.position is None
    if is_again:
        rows = unit.execute(query.where(_inbox.c.id.in_(run.held_back))).all() if run.held_back else []
        run.held_back, run.position = [], run.since_id or _NIL
    else:
        rows = unit.execute(query.where(_inbox.c.id >= run.position, _inbox.c.id < run.until_id).limit(limit)).all()
        run.position = _after(rows[-1].id) if rows else run.position
    free = _free(unit, rows, run.changed_at - timedelta(days=run.days))
    done = 0
    if free:  # unless somebody replays one at this moment: then that one's lock is waited for, and its row seen
        locked = select(_inbox.c.id).where(_inbox.c.id.in_(free)).order_by(_inbox.c.id)
        unit.execute(locked.with_for_update() if unit.dialect == "postgresql" else locked).all()
        is_queued = select(_inbox_queue.c.message_id).where(_inbox_queue.c.message_id == _inbox.c.id).exists()
        is_still = (_inbox.c.id.in_(free), ~is_queued)
        done = unit.execute(update(_inbox).where(*is_still).values(body=b"", scrubbed_at=run.changed_at)).rowcount
    run.held_back = [*run.held_back, *sorted({row.id for row in rows if row.scrubbed_at is None} - set(free))]
    run.seen, run.rows = run.seen + len(rows), run.rows + done
    return not is_again and (len(rows) < limit or len(run.held_back) >= HELD_BACK_LIMIT)


def _after(an_id: str) -> str:
    """Return the next greater id."""
    number = f"{int(an_id.replace('-', ''), 16) + 1:032x}"
    return "-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:]))


def _free(unit: Unit, rows: Sequence[Any], until: datetime) -> list[str]:
    """Ids of those of the messages that nothing needs any more."""
    decided = [row.id for row in rows if row.status is None and row.scrubbed_at is None]
    query = select(_decision.c.message_id).join(_payment, _payment.c.id == _decision.c.payment_id)
    query = query.where(_decision.c.message_id.in_(decided), not_(is_over(until)))
    needed = set(unit.execute(query).scalars()) if decided else set()
    return [each for each in decided if each not in needed]


def drop_attempts(unit: Unit, run: RetentionRun, limit: int) -> bool:
    """Delete attempts of the next effects; return whether that was the last batch.

    It ends at the first effect that is still owed.
    """
    if run.position is None:
        is_pending = _queue.c.status == OutboxStatus.PENDING
        owed = select(_queue.c.outbox_id).where(is_pending).order_by(_queue.c.outbox_id).limit(1)
        first_owed = unit.execute(owed).scalar()
        run.until_id = min(run.until_id, first_owed) if first_owed is not None else run.until_id
        run.position = run.since_id or _NIL
    of = _attempt.c.outbox_id
    query = select(of).where(of >= run.position, of < run.until_id).order_by(of).limit(limit)
    found = list(unit.execute(query).scalars())
    if found:
        effects = sorted(set(found))
        run.rows += unit.execute(delete(_attempt).where(_attempt.c.outbox_id.in_(effects))).rowcount
        run.position = _after(effects[-1])
    run.seen += len(found)
    return len(found) < limit


def forget(unit: Unit, run: RetentionRun, limit: int) -> bool:
    """Delete the next known deliveries of old messages; return whether it was last.

    The table is read in the order in which it lies on the disk, and once: there is no index on the time.
    """
    if unit.dialect == "postgresql":
        page = int(run.position or 0)
        pages = unit.execute(text("SELECT pg_relation_size('known_delivery') / current_setting('block_size')::int"))
        is_last = page + _PAGES >= int(pages.scalar_one())
        where = "ctid >= cast(:low AS tid) AND ctid < cast(:high AS tid)"
        bounds = {"low": f"({page},0)", "high": f"({page + _PAGES},0)"}
        run.seen += unit.execute(text(f"SELECT count(*) FROM known_delivery WHERE {where}"), bounds).scalar_one()  # noqa: S608 - our words
        gone = unit.execute(
            text(f"DELETE FROM known_delivery WHERE {where} AND message_id < :until"),  # noqa: S608 - our words
            {**bounds, "until": run.until_id},
        )
        run.rows, run.position = run.rows + gone.rowcount, str(page + _PAGES)
        return is_last
    account, _, key = (run.position or "").partition("\n")
    place = tuple_(_known.c.account, _known.c.delivery_key)
    query = select(_known.c.account, _known.c.delivery_key, _known.c.message_id).where(place > (account, key))
    rows = unit.execute(query.order_by(_known.c.account, _known.c.delivery_key).limit(limit)).all()
    old = [(row.account, row.delivery_key) for row in rows if row.message_id < run.until_id]
    if old:
        run.rows += unit.execute(delete(_known).where(place.in_(old))).rowcount
    run.seen += len(rows)
    if rows:
        run.position = f"{rows[-1].account}\n{rows[-1].delivery_key}"
    return len(rows) < limit


def drop_rejected(unit: Unit, run: RetentionRun, limit: int) -> bool:
    """Delete the next rejected deliveries; return whether that was the last batch."""
    return _drop(unit, run, limit, _rejected, _rejected.c.id < run.until_id)


def drop_reconciliations(unit: Unit, run: RetentionRun, limit: int) -> bool:
    """Delete the next reports except each account's last; return whether it was last."""
    other = _reconciliation.alias()
    later = select(other.c.id).where(
        other.c.account == _reconciliation.c.account, other.c.began_at > _reconciliation.c.began_at
    )
    return _drop(
        unit,
        run,
        limit,
        _reconciliation,
        and_(
            _reconciliation.c.id < run.until_id,
            _reconciliation.c.status != ReconciliationStatus.RUNNING,
            later.exists(),
        ),
    )


def _drop(unit: Unit, run: RetentionRun, limit: int, table: Any, condition: ColumnElement[bool]) -> bool:
    old = list(unit.execute(select(table.c.id).where(condition).order_by(table.c.id).limit(limit)).scalars())
    if old:
        run.rows += unit.execute(delete(table).where(table.c.id.in_(old))).rowcount
    run.seen += len(old)
    return len(old) < limit
