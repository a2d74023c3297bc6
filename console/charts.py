"""Charts of the overview, drawn by pygal without its styles and scripts.

Each is shown with its numbers as a table, for readers who do not see it or want the figures.
"""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pygal
from markupsafe import Markup
from pygal.style import Style

from service.overview import OverviewFigures
from statemachine.phases import Outcome
from storage.totals import REJECTED, Deliveries, lag_quantile
from storage.types import InboxStatus

# pygal asks to be asked at every import of the process, in a way that Python has given up. Its maps are not used here.
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("pygal")]

_DROPPED_TAGS: Final[frozenset[object]] = frozenset({"style", "script", "defs", "desc", "title", ET.Comment})
_DROPPED_CLASSES: Final = frozenset({"text-overlay", "tooltip-overlay", "titles", "legends", "background"})
_NO_STYLE: Final = Style(background="transparent", plot_background="transparent", font_family="inherit")

#: Labels of the x axis that are written out, of however many points.
_MAX_X_LABELS: Final = 6


@dataclass(frozen=True, slots=True)
class Series:
    """One row of points; `tone` is a class of the style sheet, such as chart-1."""

    name: str
    values: Sequence[float | None]
    tone: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Data of one chart; all its series have the same labels."""

    id: str  #: of the page
    title: str
    description: str  #: what it says, in a sentence
    heading: str  #: what the labels are, such as "Minute"
    labels: Sequence[str]
    series: Sequence[Series]
    unit: str = ""  #: behind each value, such as "s"

    @property
    def is_empty(self) -> bool:
        """True where there is nothing to draw."""
        return not any(value for series in self.series for value in series.values)

    def format(self, value: float | None) -> str:
        """Format a value; a dash where there is none."""
        return "–" if value is None else self._shown(value)

    def bars(self) -> Markup:
        """Draw stacked bars."""
        return self._drawn(pygal.StackedBar, margin=0, spacing=4)

    def lines(self) -> Markup:
        """Draw lines, with gaps where there is no value."""
        return self._drawn(pygal.Line, margin=0, spacing=4, dots_size=2.2, allow_interruptions=True)

    def _drawn(self, kind: type[Any], **options: Any) -> Markup:
        top = max((sum(value or 0 for value in column) for column in self._columns()), default=0)
        chart = kind(
            js=(),
            css=(),
            style=_NO_STYLE,
            no_prefix=True,
            classes=("chart",),
            disable_xml_declaration=True,
            show_legend=False,
            width=680,
            height=190,
            margin_left=4,
            margin_right=4,
            margin_top=6,
            margin_bottom=2,
            min_scale=2,
            max_scale=4,
            range=(0, top or 1),
            truncate_label=-1,
            order_min=None if self.unit else 0,  # what is counted has no halves
            **options,
        )
        every = max(1, -(-len(self.labels) // _MAX_X_LABELS))
        chart.x_labels = [label if at % every == 0 else "" for at, label in enumerate(self.labels)]
        chart.y_value_formatter = chart.value_formatter = self._shown
        for series in self.series:
            chart.add(series.name, list(series.values))
        root = chart.render_tree()
        _strip(root)
        self._name(root)
        for group in root.iter("g"):
            self._toned(group)
        return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - every text in it was escaped when written

    def _columns(self) -> Sequence[tuple[float | None, ...]]:
        return list(zip(*(series.values for series in self.series), strict=True))

    def _shown(self, value: float) -> str:
        return f"{value:,.3g}{self.unit}" if self.unit else f"{value:,.0f}"

    def _name(self, root: ET.Element) -> None:
        """Add title and description, which screen readers read as the name of one image."""
        for at, (tag, words) in enumerate((("title", self.title), ("desc", self.description))):
            element = ET.Element(tag, {"id": f"{self.id}-{tag}"})
            element.text = words
            root.insert(at, element)
        root.attrib.pop("id", None)
        root.set("role", "img")
        root.set("aria-labelledby", f"{self.id}-title {self.id}-desc")

    def _toned(self, group: ET.Element) -> None:
        """Style each series by its tone, and give each point a title."""
        words = group.get("class", "").split()
        number = next((int(word.removeprefix("serie-")) for word in words if word.startswith("serie-")), None)
        if number is None:
            return
        series = self.series[number]
        group.set("class", f"series {series.tone}")
        points = [child for child in group.iter("g") if child.get("class", "") in ("bar", "dots")]
        known = [at for at, value in enumerate(series.values) if value is not None]
        for at, point in zip(known, points, strict=False):
            value = series.values[at]
            if not value:
                point.clear()  # bars without a height
                continue
            title = ET.SubElement(point, "title")
            title.text = f"{self.labels[at]}: {self._shown(value)} {series.name}"


def _strip(root: ET.Element) -> None:
    """Remove styles, scripts, comments, parts for scripts only, and empty guides."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _DROPPED_TAGS or _is_unseen(child):
                parent.remove(child)
        parent.attrib.pop("style", None)


def _is_unseen(element: ET.Element) -> bool:
    words = set(element.get("class", "").split())
    if words == {"guides"}:
        return not any(text.text for text in element.iter("text"))
    if "overlay" in words:  # where lines have their points: one that has no neighbour is seen by nothing else
        return next(element.iter("circle"), None) is None
    return not _DROPPED_CLASSES.isdisjoint(words)


def largest_names(counts: Mapping[str, int], most: int) -> list[str]:
    """Return the names with the largest counts, alphabetically."""
    largest = sorted(counts, key=lambda name: (-counts[name], name))[:most]
    return sorted(largest)


#: Groups of outcomes of deliveries, few enough to be distinguished: name, outcomes and tone.
DELIVERY_GROUPS: Final = (
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
_MAX_ACCOUNTS: Final = 5


class ChartCache:
    """Cache of drawn charts: a chart is drawn again only when its data changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Chart, Markup]] = {}

    def of(self, figures: OverviewFigures) -> list[tuple[Chart, Markup]]:
        """Return each chart with its SVG.

        Drawing one takes some 10 ms of processor time: call it in a thread.
        """
        bars, lines = (deliveries_chart(figures), paid_chart(figures)), (lag_chart(figures),)
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
    """Count deliveries by group, over all accounts."""
    outcomes: Counter[str] = Counter()
    for (_, outcome), count in found.outcomes.items():
        outcomes[outcome] += count
    return {name: sum(outcomes[outcome] for outcome in outcomes_) for name, outcomes_, _ in DELIVERY_GROUPS}


def deliveries_chart(figures: OverviewFigures) -> Chart:
    """Chart of deliveries per minute, by outcome."""
    minutes = {at: grouped(found) for at, found in figures.minutes.items()}
    total = sum(sum(counts.values()) for counts in minutes.values())
    return Chart(
        id="chart-ingest",
        title="Deliveries per minute, by what became of them",
        description=f"{total:,} in the last hour; the last minute is not over yet.",
        heading="Minute, UTC",
        labels=[f"{at:%H:%M}" for at in minutes],
        series=[Series(name, [counts[name] for counts in minutes.values()], tone) for name, _, tone in DELIVERY_GROUPS],
    )


def paid_chart(figures: OverviewFigures) -> Chart:
    """Chart of payments paid per hour, by account."""
    totals: Counter[str] = Counter()
    for counts in figures.hours.values():
        totals.update(counts)
    shown = largest_names(totals, _MAX_ACCOUNTS)
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


def lag_chart(figures: OverviewFigures) -> Chart:
    """Chart of the time from receipt to decision: median and 95th percentile."""
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
