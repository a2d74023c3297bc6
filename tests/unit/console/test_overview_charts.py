"""Charts of the overview are drawn when they show something else, and not for everybody who looks."""

from dataclasses import replace
from datetime import timedelta

from console.charts import Chart, ChartCache
from service.overview import OverviewFigures
from storage.totals import Deliveries
from tests.support.clock import START

HOUR = timedelta(hours=1)


def the_figures():
    return OverviewFigures(
        START, None, (), {START - HOUR: {"acme": 2}}, {START: Deliveries()}, {}, {}, {}, is_whole=True
    )


def test_what_shows_the_same_is_not_drawn_again_and_what_shows_something_else_is(monkeypatch):
    """Of three charts one shows the payments that were paid: another hour draws that one alone."""
    drawn = []
    draw = Chart._drawn
    monkeypatch.setattr(
        Chart, "_drawn", lambda chart, *kind, **how: drawn.append(chart.id) or draw(chart, *kind, **how)
    )
    drawings, figures = ChartCache(), the_figures()

    first = drawings.of(figures)
    again = drawings.of(replace(figures, at=START + HOUR))
    other = drawings.of(replace(figures, hours={START - HOUR: {"acme": 3}}))

    assert drawn == ["chart-ingest", "chart-paid", "chart-lag", "chart-paid"]
    assert again == first
    assert [chart.id for (chart, svg), (_, before) in zip(other, first, strict=True) if svg != before] == ["chart-paid"]
