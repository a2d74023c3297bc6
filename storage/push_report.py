"""The figures of push put together for people and for metrics: by account and event, with the alarms that stand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from storage import histogram, push
from storage.engine import Unit
from storage.tables_asking import PushQuality, PushWatch

#: Signed times are earlier than receipt by what the delivery took: of ten, the quickest tells the clocks' difference.
_QUICKEST: Final = 0.9


class Pushing(StrEnum):
    """Whether the provider pushes an event at all, by all that is kept of it."""

    YES = "yes"  #: a push has told of it
    NO = "no"  #: found by asking again and again, and never a push: not lost, but not pushed
    UNKNOWN = "unknown"  #: no push yet, and too few changes to say that there is none


@dataclass(frozen=True, slots=True)
class EventFigures:
    """What one event's push was worth. `changes` is the sum of pushed, late and lost."""

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
        """How many changes were judged."""
        return self.pushed + self.late + self.lost


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """What one account's push was worth, and which alarms stand."""

    account: str
    measured_at: datetime | None
    heard_at: datetime | None  #: the last verified delivery
    deliveries: int
    rejected: int  #: at least: what was pushed out of quarantine or turned away unread is not known
    skew: timedelta | None  #: the provider's clock less ours, to about a second; None where it signs no time
    events: list[EventFigures] = field(default_factory=list)
    alarms: Mapping[str, Any] = field(default_factory=dict)


def figures(unit: Unit, account: str | None, since: date, until: date) -> list[AccountFigures]:
    """The figures of whole UTC days, both included, of one account or all that were ever measured."""
    found: list[AccountFigures] = []
    for name, watch in push.watches(unit).items():
        if account in (None, name):
            every = push.between(unit, name, date.min, until)
            found.append(_of_account(watch, every, [row for row in every if row.day >= since]))
    return found


def _of_account(watch: PushWatch, every: list[PushQuality], rows: list[PushQuality]) -> AccountFigures:
    pushing = _pushing(every)
    events: dict[tuple[str, str], list[PushQuality]] = {}
    for row in rows:
        if row.kind or row.deliveries:
            events.setdefault((row.kind, row.event), []).append(row)
    skews = histogram.merged((row.skews, 1.0) for row in rows)
    return AccountFigures(
        account=watch.account,
        measured_at=watch.measured_at,
        heard_at=watch.heard_at,
        deliveries=sum(row.deliveries for row in rows),
        rejected=sum(row.rejected for row in rows),
        skew=histogram.quantile(skews, _QUICKEST),
        events=[_of_event(key, found, pushing.get(key)) for key, found in sorted(events.items())],
        alarms=watch.alarms,
    )


def _pushing(every: Iterable[PushQuality]) -> dict[tuple[str, str], Pushing]:
    rows = list(every)
    pushed = push.pushed_events(rows)
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.event:
            found[row.kind, row.event] = found.get((row.kind, row.event), 0) + row.lost
    absent = {key: Pushing.NO if lost >= push.ENOUGH else Pushing.UNKNOWN for key, lost in found.items()}
    return absent | dict.fromkeys(pushed, Pushing.YES)


def _of_event(key: tuple[str, str], rows: list[PushQuality], pushing: Pushing | None) -> EventFigures:
    pushed, late, lost = (sum(getattr(row, name) for row in rows) for name in ("pushed", "late", "lost"))
    changes = pushed + late + lost
    lags = histogram.merged((row.lags, 1.0) for row in rows)
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
        lag_p50=histogram.quantile(lags, 0.5),
        lag_p99=histogram.quantile(lags, 0.99),
    )
