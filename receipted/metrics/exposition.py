"""Rows as the text that Prometheus reads, in whichever of its formats it asks for."""

from collections.abc import Iterator

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from receipted.metrics.catalogue import METRICS, Metric
from receipted.metrics.rows import Rows


def exposed(rows: Rows, accept: str) -> tuple[bytes, str]:
    """The text and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(_Answer(rows)), content_type


class _Answer(Collector):
    """One answer's families, in the order of the catalogue."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            if metric.name in self._rows:
                yield _family(metric, self._rows[metric.name])


def _family(metric: Metric, series: dict[tuple[str, ...], list[float]]) -> Family:
    names = list(metric.labels)
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.says, labels=names)
        for labels, row in sorted(series.items()):
            histogram.add_metric(labels, _buckets(metric, row), row[-1])
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.says, labels=names)
    for labels, row in sorted(series.items()):
        family.add_metric(labels, row[0])
    return family


def _buckets(metric: Metric, row: list[float]) -> list[tuple[str, float]]:
    """Cumulative, as the format has them."""
    found, total = [], 0.0
    for bound, count in zip((*metric.bounds, float("inf")), row, strict=False):
        total += count
        found.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
    return found
