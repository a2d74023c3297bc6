"""Figures as rows of numbers, which can be bounded, added over processes, and written as text."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from receipted.metrics.catalogue import OTHER, Metric

#: By metric's name and the values of its labels: one number, or of a histogram the counts and the sum.
Rows = dict[str, dict[tuple[str, ...], list[float]]]


class Bounds:
    """Which values the labels may have that are named by the settings; any other becomes OTHER, or is left out."""

    def __init__(self, accounts: Iterable[str], sinks: Iterable[str], version: str) -> None:
        self._names: Mapping[str, tuple[str, ...]] = {
            "account": tuple(accounts),
            "sink": tuple(sinks),
            "version": (version,),
        }

    def values(self, metric: Metric) -> list[tuple[str, ...]]:
        """By label, every value that it may have."""
        return [self._names[name] if values is None else values for name, values in metric.labels.items()]

    def every(self, metric: Metric) -> Iterable[tuple[str, ...]]:
        """All values of the labels together."""
        return product(*self.values(metric))

    def bounded(self, metric: Metric, values: Sequence[str]) -> tuple[str, ...]:
        """The values, with OTHER in the place of what is unknown; "" says that there is none, and stays."""
        allowed = self.values(metric)
        return tuple(
            value if not value or value in known else OTHER for value, known in zip(values, allowed, strict=True)
        )


def add(rows: Rows, metric: Metric, labels: tuple[str, ...], numbers: Sequence[float]) -> None:
    """The numbers are added to those that are there."""
    known = rows.setdefault(metric.name, {})
    before = known.get(labels)
    known[labels] = list(numbers) if before is None else [a + b for a, b in zip(before, numbers, strict=True)]


def merged(parts: Iterable[Rows]) -> Rows:
    """The sums of all."""
    found: Rows = {}
    for part in parts:
        for name, series in part.items():
            known = found.setdefault(name, {})
            for labels, numbers in series.items():
                before = known.get(labels)
                known[labels] = numbers if before is None else [a + b for a, b in zip(before, numbers, strict=True)]
    return found


def packed(rows: Rows, **more: Any) -> bytes:
    """The rows and what else there is, for another process."""
    return msgspec.json.encode(
        {"rows": {name: [[list(labels), row] for labels, row in series.items()] for name, series in rows.items()}}
        | more
    )


def unpacked(content: bytes) -> tuple[Rows, dict[str, Any]]:
    """What was packed."""
    found: dict[str, Any] = msgspec.json.decode(content)
    rows = {name: {tuple(labels): row for labels, row in series} for name, series in found.pop("rows").items()}
    return rows, found
