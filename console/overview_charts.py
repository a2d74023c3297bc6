"""The charts of the overview, from its figures."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from markupsafe import Markup

from console.charts import Chart, Series, shares
from service.overview import OverviewFigures
from statemachine.phases import Outcome
from storage.totals import REJECTED, Deliveries, lag_quantile
from storage.types import InboxStatus

#: What became of deliveries, as few as can be told apart: name, outcomes, and the tone of it.
GROUPS: Final = (
    ("moved a payment", (Outcome.ADVANCED.value,), "chart-ok"),
    (
        "nothing new",
        (Outcome.UNCHANGED.value, Outcome.STALE.value, Outcome.NOTED.value),
        "chart-quiet",
    ),
    ("not decided yet", (InboxStatus.PENDING.value,), "chart-busy"),
    (
        "parked, in conflict or dead",
        (Outcome.PARKED.value, Outcome.CONFLICT.value, InboxStatus.DEAD.value),
        "chart-warn",
    ),
    ("rejected", (REJECTED,), "chart-bad"),
)

#: Accounts that have a colour of their own; the others are drawn together.
_ACCOUNTS: Final = 5


class Drawings:
    """The charts as they are drawn: a chart that shows what it showed at the last look is not drawn again."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Chart, Markup]] = {}

    def of(self, figures: OverviewFigures) -> list[tuple[Chart, Markup]]:
        """Each with its drawing. Drawing one takes some 10 ms of the processor: call it in a thread."""
        bars, lines = (ingest(figures), paid(figures)), (lag(figures),)
        return [
            *(self._drawn(chart, Chart.bars) for chart in bars),
            *(self._drawn(chart, Chart.lines) for chart in lines),
        ]

    def _drawn(self, chart: Chart, draw: Callable[[Chart], Markup]) -> tuple[Chart, Markup]:
        kept = self._kept.get(chart.id)
        if kept is None or kept[0] != chart:
            kept = self._kept[chart.id] = (chart, draw(chart))
        return kept


def grouped(found: Deliveries) -> dict[str, int]:
    """Deliveries by group, of all accounts."""
    outcomes: Counter[str] = Counter()
    for (_, outcome), count in found.outcomes.items():
        outcomes[outcome] += count
    return {name: sum(outcomes[outcome] for outcome in outcomes_) for name, outcomes_, _ in GROUPS}


def ingest(figures: OverviewFigures) -> Chart:
    """Deliveries per minute, by what became of them."""
    minutes = {at: grouped(found) for at, found in figures.minutes.items()}
    total = sum(sum(counts.values()) for counts in minutes.values())
    return Chart(
        id="chart-ingest",
        title="Deliveries per minute, by what became of them",
        description=f"{total:,} in the last hour; the last minute is not over yet.",
        heading="Minute, UTC",
        labels=[f"{at:%H:%M}" for at in minutes],
        series=[Series(name, [counts[name] for counts in minutes.values()], tone) for name, _, tone in GROUPS],
    )


def paid(figures: OverviewFigures) -> Chart:
    """Payments that were paid per hour, by account."""
    totals: Counter[str] = Counter()
    for counts in figures.hours.values():
        totals.update(counts)
    shown = shares(totals, _ACCOUNTS)
    series = [
        Series(name, [counts.get(name, 0) for counts in figures.hours.values()], f"chart-{at}")
        for at, name in enumerate(shown, start=1)
    ]
    if len(totals) > len(shown):
        rest = [sum(counts.values()) - sum(counts.get(name, 0) for name in shown) for counts in figures.hours.values()]
        series.append(Series("all others", rest, "chart-quiet"))
    return Chart(
        id="chart-paid",
        title="Payments paid per hour, by account",
        description=f"{totals.total():,} in the last 24 hours; the last hour is not over yet.",
        heading="Hour, UTC",
        labels=[f"{at:%H:%M}" for at in figures.hours],
        series=series,
    )


def lag(figures: OverviewFigures) -> Chart:
    """How long deliveries waited for their decision."""
    lags = [found.lags for found in figures.minutes.values()]
    return Chart(
        id="chart-lag",
        title="From receipt to decision",
        description="Within how many seconds half of each minute's deliveries were decided, and 95 of 100.",
        heading="Minute, UTC",
        labels=[f"{at:%H:%M}" for at in figures.minutes],
        series=[
            Series("for half", [lag_quantile(counts, 0.5) for counts in lags], "chart-ok"),
            Series("for 95 of 100", [lag_quantile(counts, 0.95) for counts in lags], "chart-warn"),
        ],
        unit=" s",
    )
