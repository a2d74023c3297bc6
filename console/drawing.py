"""What a drawing of a lifecycle consists of: boxes, arrows, and which of them one payment passed. Pure.

Everything is in the pixels of an SVG, which a template writes down; `console/sheet.py` says where things stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

_RADIUS: Final = 5
_HEAD: Final = 5  #: half as wide, and nearly as long, as an arrow's head

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Passage:
    """One transition of the payment, as far as it is drawn."""

    number: int
    source: str | None  #: None for the first
    target: str
    via: tuple[str, ...] = ()  #: states that it passed without a message of their own
    forced: bool = False
    at: datetime | None = None  #: when it happened, as well as is known
    phase: str = ""  #: of the target, for one that the lifecycle does not know


@dataclass(frozen=True, slots=True)
class Step:
    """One move of a passage: from one state to the next, the skipped ones included."""

    source: str | None
    target: str
    number: int  #: the transition that it belongs to
    forced: bool
    skips: bool  #: nothing told of the target itself
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Text:
    """One line of a box."""

    words: str
    x: float
    y: float  #: of its foot
    size: int


@dataclass(frozen=True, slots=True)
class Box:
    """One state."""

    name: str
    phase: str
    x: float
    y: float
    width: float
    height: float
    texts: tuple[Text, ...]
    entered: str  #: "current", "passed", "skipped", or "" where the payment has not been
    is_terminal: bool
    is_unknown: bool  #: the lifecycle, as this program has it, does not know it


@dataclass(frozen=True, slots=True)
class Arrow:
    """One move; its `points` are the corners of its way, from a box's edge to a box's edge."""

    source: str | None  #: None where a payment begins
    target: str
    points: tuple[Point, ...]
    walked: str  #: "passed", "skipped", or "" where the payment did not go
    is_forced: bool  #: against the lifecycle
    numbers: tuple[int, ...] = ()  #: of the transitions that went along it

    @property
    def path(self) -> str:
        """The way with rounded corners, as an SVG path."""
        (x, y), *rest = self.points
        words = [f"M{x:g} {y:g}"]
        for at, corner in enumerate(rest, start=1):
            if at == len(self.points) - 1:
                words.append(f"L{corner[0]:g} {corner[1]:g}")
                break
            before, after = _towards(corner, self.points[at - 1]), _towards(corner, self.points[at + 1])
            words.append(f"L{before[0]:g} {before[1]:g}Q{corner[0]:g} {corner[1]:g} {after[0]:g} {after[1]:g}")
        return "".join(words)

    @property
    def head(self) -> str:
        """The triangle at its end, as the points of an SVG polygon."""
        (fx, fy), (x, y) = self.points[-2:]
        if fx == x:
            back = -_HEAD * 1.6 if fy < y else _HEAD * 1.6
            corners = [(x, y), (x - _HEAD, y + back), (x + _HEAD, y + back)]
        else:
            back = -_HEAD * 1.6 if fx < x else _HEAD * 1.6
            corners = [(x, y), (x + back, y - _HEAD), (x + back, y + _HEAD)]
        return " ".join(f"{a:g},{b:g}" for a, b in corners)


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything to be drawn; moves that were walked come last, so that they lie on top."""

    name: str
    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def steps(passages: Sequence[Passage]) -> list[Step]:
    """Every move that the payment made, in order, with those to the states that its transitions skipped."""
    found: list[Step] = []
    for passage in passages:
        source = passage.source
        for name in passage.via:
            found.append(Step(source, name, passage.number, passage.forced, True, None))
            source = name
        found.append(Step(source, passage.target, passage.number, passage.forced, False, passage.at))
    return found


def _towards(corner: Point, other: Point) -> Point:
    """The point where the rounding of a corner begins, on the way to another point."""
    (x, y), (ox, oy) = corner, other
    way = abs(ox - x) + abs(oy - y)
    share = min(_RADIUS, way / 2) / way if way else 0.0
    return round(x + (ox - x) * share, 2), round(y + (oy - y) * share, 2)
