"""What was given up of one account, until somebody mends it."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select, text

from storage.engine import Unit
from storage.tables import InboxMessageTable, OutboxMessageTable
from storage.types import InboxStatus, OutboxStatus

_inbox: Any = InboxMessageTable.__table__  # type: ignore[attr-defined]
_outbox: Any = OutboxMessageTable.__table__  # type: ignore[attr-defined]

#: Rows beyond which nobody counts on.
MOST: Final = 1000

#: As the partial indexes have it: SQLite does not see that a value that is bound is one of theirs.
_STUCK: Final = text("(status = 'parked' OR status = 'dead')")
_DEAD: Final = text("status = 'dead'")


@dataclass(frozen=True, slots=True)
class Dead:
    """How many of an account are dead, up to MOST of each."""

    messages: int
    effects: int  #: about payments; an alarm that was not told begets none
    sinks: tuple[str, ...] = ()  #: to which those effects are owed


def of_account(unit: Unit, account: str) -> Dead:
    """What is dead of the account's messages, and of its payments' effects. Found by the indexes of what is dead."""
    is_dead = (_inbox.c.status == InboxStatus.DEAD, _inbox.c.account == account)
    messages = select(_inbox.c.id).where(_STUCK, *is_dead).limit(MOST).subquery()
    is_dead = (_outbox.c.status == OutboxStatus.DEAD, _outbox.c.account == account)
    effects = select(_outbox.c.sink).where(_DEAD, *is_dead, _outbox.c.payment_id.is_not(None)).limit(MOST).subquery()
    by_sink = unit.execute(select(effects.c.sink, func.count()).group_by(effects.c.sink).order_by(effects.c.sink)).all()
    number = unit.execute(select(func.count()).select_from(messages)).scalar_one()
    return Dead(number, sum(count for _, count in by_sink), tuple(sink for sink, _ in by_sink))
