"""What was measured: medians with their spread, bars and whether they are reached, tables, and what went wrong."""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the extremes."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, found: Iterable[float]) -> "Spread":
        """Of one figure for each round; at least one."""
        figures = list(found)
        return cls(statistics.median(figures), min(figures), max(figures))

    def __str__(self) -> str:
        if self.least == self.most:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)}..{number(self.most)})"


def ratios(own: Sequence[float], others: Sequence[float]) -> Spread:
    """How many times the other's each figure is: within each round first, since the machine drifts between rounds."""
    return Spread.of(mine / theirs for mine, theirs in zip(own, others, strict=True))


def number(figure: float) -> str:
    """As few digits as tell it: 12,345 and 123 and 1.23 and 0.012."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}" if abs(figure) >= 0.1 else f"{figure:.3f}"


def prose(text: str) -> str:
    """One sentence a line, however the text was broken."""
    return re.sub(r"(?<![.:\n])\n(?!$)", " ", text.strip()) + "\n"


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise, and what was measured; None where it could not be measured here."""

    promise: str
    measured: Spread | None
    target: float
    is_ceiling: bool = False  #: measured must be at most the target, and not at least
    unit: str = ""

    @property
    def is_reached(self) -> bool | None:
        """Whether the median reaches the target; None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured.median <= self.target if self.is_ceiling else self.measured.median >= self.target

    @property
    def wanted(self) -> str:
        """The target in words."""
        return f"{'at most' if self.is_ceiling else 'at least'} {number(self.target)}{self.unit}"

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "reached", False: "missed", None: "not measured"}[self.is_reached]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text below a head."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much a part may measure."""

    rounds: int
    seconds: float  #: after which no round is begun


@dataclass(slots=True)
class Part:
    """What one part of the run has found."""

    name: str
    title: str
    about: str  #: what its figures include; one sentence a line
    bars: list[Bar] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  #: wrong answers and lost rows: the command fails
    chart: str = ""  #: an SVG
    seconds: float = 0.0

    def as_data(self) -> dict[str, Any]:
        """For a machine to read."""
        bars = [{**asdict(bar), "is_reached": bar.is_reached} for bar in self.bars]
        tables = [asdict(table) for table in self.tables]
        return {"seconds": round(self.seconds, 1), "bars": bars, "tables": tables, "faults": self.faults}
