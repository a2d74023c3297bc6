"""What push was worth: the figures that are kept by day, and what follows from them for asking and for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import select

from storage import histogram
from storage.engine import Unit
from storage.tables_asking import PushQuality, PushWatch

_quality = PushQuality.__table__  # type: ignore[attr-defined]
_watch = PushWatch.__table__  # type: ignore[attr-defined]

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
    """How far push can be relied upon, for one account and kind."""

    loss: float | None  #: share of changes that no push tells of; near 1 on few samples; None: there is no push
    lag_p99: timedelta | None  #: from the change at the provider to receipt; None where the provider tells no time
    samples: int  #: changes that this rests on, of the last 30 days


@dataclass(frozen=True, slots=True)
class Share:
    """How much was lost, recent days weighing more."""

    lost: float
    changes: float
    samples: int  #: the changes without their weights

    @property
    def loss(self) -> float | None:
        """The share; None of nothing."""
        return self.lost / self.changes if self.changes else None


def worth(unit: Unit, account: str, kind: str, now: datetime) -> PushWorth:
    """What one kind's push is worth by the last days; a few short reads, for once a minute rather than once a payment.

    Events that are never pushed do not count: of them nothing is lost. `loss` begins at 1 and comes down to the true
    share as samples come in; it is None where no push of the kind was seen at all.
    """
    today = now.date()
    rows = between(unit, account, today - timedelta(days=_DAYS), today, kind=kind)
    if not any(row.deliveries for row in rows):
        return PushWorth(None, None, 0)
    share = share_of(rows, today)
    lags = histogram.merged((row.lags, weight(row.day, today)) for row in rows)
    return PushWorth(
        loss=(share.lost + _DOUBT) / (share.changes + _DOUBT),
        lag_p99=histogram.quantile(lags, 0.99),
        samples=share.samples,
    )


def share_of(rows: Iterable[PushQuality], today: date) -> Share:
    """What was lost of these figures, without the events of which no push was ever seen among them."""
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
    """The figures of these days, both included, by account, kind, event and day; of every account where None."""
    query = select(_quality).where(_quality.c.day >= since, _quality.c.day <= until)
    for column, wanted in ((_quality.c.account, account), (_quality.c.kind, kind)):
        if wanted is not None:
            query = query.where(column == wanted)
    order = (_quality.c.account, _quality.c.kind, _quality.c.event, _quality.c.day)
    return unit.all(PushQuality, query.order_by(*order))


def watches(unit: Unit) -> dict[str, PushWatch]:
    """How far each account's push was measured, and which alarms stand, by account."""
    return {watch.account: watch for watch in unit.all(PushWatch, select(_watch).order_by(_watch.c.account))}


def standing(unit: Unit) -> dict[str, Mapping[str, Any]]:
    """The alarms that stand now, by account and alarm: `since`, `noticed`, `reason` and `details`."""
    return {account: watch.alarms for account, watch in watches(unit).items() if watch.alarms}
