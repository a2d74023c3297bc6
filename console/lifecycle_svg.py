"""Layout of a lifecycle's diagram with one payment's path, as SVG. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from statemachine.lifecycle import NOT_CREATED, Lifecycle, State
from statemachine.phases import Phase

_CORNER_RADIUS_PX: Final = 5
_ARROWHEAD_PX: Final = 5  #: half as wide, and nearly as long, as an arrow's head

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class DrawnTransition:
    """One transition of the payment, with what the diagram shows of it."""

    number: int
    source: str | None  #: None for the first
    target: str
    via: tuple[str, ...] = ()  #: states that it passed without a message of their own
    forced: bool = False
    at: datetime | None = None  #: when it happened, as well as is known
    phase: str = ""  #: of the target, for one that the lifecycle does not know


@dataclass(frozen=True, slots=True)
class DrawnMove:
    """One move of a transition, from one state to the next, skipped states included."""

    source: str | None
    target: str
    number: int  #: the transition that it belongs to
    forced: bool
    skips: bool  #: no message reported the target itself
    at: datetime | None


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of text in a box."""

    words: str
    x: float
    y: float  #: of its foot
    size: int


@dataclass(frozen=True, slots=True)
class StateBox:
    """Box of one state."""

    name: str
    phase: str
    x: float
    y: float
    width: float
    height: float
    texts: tuple[TextLine, ...]
    entered: str  #: "current", "passed", "skipped", or "" where the payment has not been
    is_terminal: bool
    is_unknown: bool  #: the lifecycle, as this program has it, does not know it


@dataclass(frozen=True, slots=True)
class MoveArrow:
    """Arrow of one move; `points` are its corners, from a box's edge to a box's edge."""

    source: str | None  #: None where a payment begins
    target: str
    points: tuple[Point, ...]
    walked: str  #: "passed", "skipped", or "" where the payment did not go
    is_forced: bool  #: against the lifecycle
    numbers: tuple[int, ...] = ()  #: of the transitions that went along it

    @property
    def path(self) -> str:
        """SVG path with rounded corners."""
        (x, y), *rest = self.points
        words = [f"M{x:g} {y:g}"]
        for at, corner in enumerate(rest, start=1):
            if at == len(self.points) - 1:
                words.append(f"L{corner[0]:g} {corner[1]:g}")
                break
            before, after = _rounding_start(corner, self.points[at - 1]), _rounding_start(corner, self.points[at + 1])
            words.append(f"L{before[0]:g} {before[1]:g}Q{corner[0]:g} {corner[1]:g} {after[0]:g} {after[1]:g}")
        return "".join(words)

    @property
    def head(self) -> str:
        """Points of the SVG polygon of the arrowhead."""
        (fx, fy), (x, y) = self.points[-2:]
        if fx == x:
            back = -_ARROWHEAD_PX * 1.6 if fy < y else _ARROWHEAD_PX * 1.6
            corners = [(x, y), (x - _ARROWHEAD_PX, y + back), (x + _ARROWHEAD_PX, y + back)]
        else:
            back = -_ARROWHEAD_PX * 1.6 if fx < x else _ARROWHEAD_PX * 1.6
            corners = [(x, y), (x + back, y - _ARROWHEAD_PX), (x + back, y + _ARROWHEAD_PX)]
        return " ".join(f"{a:g},{b:g}" for a, b in corners)


@dataclass(frozen=True, slots=True)
class LifecycleDrawing:
    """Boxes and arrows of a diagram; moves that were taken come last, on top."""

    name: str
    width: float
    height: float
    boxes: tuple[StateBox, ...]
    arrows: tuple[MoveArrow, ...]


def drawn_moves(passages: Sequence[DrawnTransition]) -> list[DrawnMove]:
    """Return the payment's moves in order, those to skipped states included."""
    found: list[DrawnMove] = []
    for passage in passages:
        source = passage.source
        for name in passage.via:
            found.append(DrawnMove(source, name, passage.number, passage.forced, True, None))
            source = name
        found.append(DrawnMove(source, passage.target, passage.number, passage.forced, False, passage.at))
    return found


def _rounding_start(corner: Point, other: Point) -> Point:
    """Return the point where the rounding of a corner begins, towards another point."""
    (x, y), (ox, oy) = corner, other
    way = abs(ox - x) + abs(oy - y)
    share = min(_CORNER_RADIUS_PX, way / 2) / way if way else 0.0
    return round(x + (ox - x) * share, 2), round(y + (oy - y) * share, 2)


#: Of a fixed-width face, in shares of its size: as wide as any of those that are asked for.
CHAR_WIDTH_RATIO: Final = 0.62
NAME_FONT_PX: Final = 13
TEXT_FONT_PX: Final = 11

_PADDING: Final = 8
_LINE: Final = 17
_HEIGHT: Final = 44  #: of a state that was not entered
_GAP: Final = 26  #: between two boxes
_LANE: Final = 11  #: between two lanes, and the box
_ENTRY: Final = 18  #: of the arrow with which a payment begins
_MARGIN: Final = 6
_PORT: Final = 11  #: between the ends of two moves at one box

#: How the ends stand below each other.
_ENDS: Final = (Phase.PAID, Phase.SETTLED, Phase.REFUNDED, Phase.FAILED, Phase.CANCELLED, Phase.EXPIRED)

_Move = tuple[str | None, str]
_Lane = tuple[str, bool]  #: the target, and whether it is for moves against the lifecycle


def draw_lifecycle(
    lifecycle: Lifecycle, passages: Sequence[DrawnTransition] = (), state: str | None = None
) -> LifecycleDrawing:
    """Lay out the lifecycle with a payment's path and its present state; total.

    What the payment did and the lifecycle does not permit is drawn as forced, and a state that it does not know, as
    after a change of the program, stands at the end.
    """
    walked = drawn_moves(passages)
    rows = _rows(lifecycle, passages, state)
    return _Layout(lifecycle, rows, walked, state).drawn()


def _rows(lifecycle: Lifecycle, passages: Sequence[DrawnTransition], state: str | None) -> list[State]:
    """Return the states from top to bottom."""
    moving = [each for each in lifecycle.states if not each.terminal]
    ended = sorted((each for each in lifecycle.states if each.terminal), key=lambda each: _ENDS.index(each.phase))
    phases = {passage.target: passage.phase for passage in passages}
    names = {name for step in drawn_moves(passages) for name in (step.source, step.target)} | {state}
    ours = [lifecycle.by_name[NOT_CREATED]] if NOT_CREATED in names else []
    unknown = [
        State(name, _phase(phases.get(name, "")))
        for name in sorted(each for each in names if each is not None)
        if not lifecycle.knows(name)
    ]
    return [*ours, *moving, *ended, *unknown]


def _phase(word: str) -> Phase:
    return Phase(word) if word in list(Phase) else Phase.OPEN


class _Layout:
    """Computes lanes, boxes and arrows of one diagram."""

    def __init__(self, lifecycle: Lifecycle, rows: list[State], walked: list[DrawnMove], state: str | None) -> None:
        self._lifecycle, self._rows, self._walked, self._state = lifecycle, rows, walked, state
        self._at = {row.name: number for number, row in enumerate(rows)}
        self._steps: dict[_Move, list[DrawnMove]] = {}
        for step in walked:
            self._steps.setdefault((step.source, step.target), []).append(step)
        self._legal = dict.fromkeys(self._moves())
        self._all = [*self._legal, *(move for move in self._steps if move not in self._legal)]
        self._lanes = {down: self._laned(down=down) for down in (True, False)}  #: the nearest to the column first
        self._boxes = self._placed()

    def drawn(self) -> LifecycleDrawing:
        """Return the diagram."""
        arrows = sorted(map(self._arrow, self._all), key=lambda arrow: ("", "skipped", "passed").index(arrow.walked))
        last = max(self._boxes.values(), key=lambda box: box.y)
        width = last.x + last.width + _LANE * (len(self._lanes[True]) + 1) + _MARGIN
        height = last.y + last.height + _MARGIN
        return LifecycleDrawing(self._lifecycle.name, width, height, tuple(self._boxes.values()), tuple(arrows))

    def _moves(self) -> Iterator[_Move]:
        """Yield every legal move between the states of the diagram."""
        yield from ((None, name) for name in self._lifecycle.initial)
        for source, targets in self._lifecycle.moves.items():
            yield from ((source, target) for target in targets)
        if NOT_CREATED in self._at:
            yield (None, NOT_CREATED)
            yield from ((NOT_CREATED, name) for name in self._lifecycle.initial)

    def _laned(self, *, down: bool) -> list[_Lane]:
        """Return the lanes of one side, the nearest first.

        A nearer target has a nearer lane, and moves against the lifecycle run outside.
        """
        lanes = {lane for _, lane in self._beside(down=down)}
        return sorted(lanes, key=lambda lane: (lane[1], self._at[lane[0]] * (1 if down else -1)))

    def _beside(self, *, down: bool) -> Iterator[tuple[str, _Lane]]:
        """Yield source and lane of every move on that side."""
        for source, target in self._all:
            far = 0 if source is None else self._at[target] - self._at[source]
            if source is not None and (far > 1 if down else far <= 0):
                yield source, (target, (source, target) not in self._legal)

    # -- boxes --------------------------------------------------------------------------------------------------

    def _placed(self) -> dict[str, StateBox]:
        lines = {row.name: self._lines(row) for row in self._rows}
        width = 2 * _PADDING + max(_width(words) for words in lines.values())
        x = float(_MARGIN + _ENTRY + (_LANE * (len(self._lanes[False]) + 1) if self._lanes[False] else 0))
        y, boxes = float(_MARGIN), {}
        for row in self._rows:
            words = lines[row.name]
            ports = max(len(self._ports(row.name, down=down)) for down in (True, False))
            box = StateBox(
                name=row.name,
                phase=row.phase.value,
                x=x,
                y=y,
                width=width,
                height=float(max(_HEIGHT + _LINE * (len(words) - 2), _PORT * (ports + 1))),
                texts=tuple(_texts(words, x + _PADDING, y)),
                entered=self._entered(row.name),
                is_terminal=row.terminal,
                is_unknown=not self._lifecycle.knows(row.name),
            )
            boxes[row.name] = box
            y += box.height + _GAP
        return boxes

    def _lines(self, row: State) -> list[str]:
        """Return the lines of a box: state, phase, and the last time of entry."""
        entries = [step for step in self._walked if step.target == row.name]
        dated = [step for step in entries if not step.skips]
        lines = [row.name, row.phase.value]
        if dated:
            often = f" ({len(dated)}x)" if len(dated) > 1 else ""
            at = dated[-1].at
            lines.append((f"{at:%Y-%m-%d %H:%M:%S}Z" if at is not None else "time not known") + often)
        elif entries:
            lines.append("skipped")
        return lines

    def _entered(self, name: str) -> str:
        if name == self._state:
            return "current"
        entries = [step for step in self._walked if step.target == name]
        if not entries:
            return ""
        return "skipped" if all(step.skips for step in entries) else "passed"

    # -- arrows -------------------------------------------------------------------------------------------------

    def _arrow(self, move: _Move) -> MoveArrow:
        taken = self._steps.get(move, [])
        walked = "" if not taken else "skipped" if all(step.skips for step in taken) else "passed"
        numbers = tuple(step.number for step in taken)
        return MoveArrow(*move, self._way(move), walked, move not in self._legal, numbers)

    def _way(self, move: _Move) -> tuple[Point, ...]:
        source, target = move
        end = self._boxes[target]
        if source is None:
            y = self._port(target, _BEGINS, down=False)
            return (end.x - _ENTRY, y), (end.x, y)
        begin = self._boxes[source]
        if self._at[target] == self._at[source] + 1:
            x = end.x + end.width / 2
            return (x, begin.y + begin.height), (x, end.y)
        down, lane = self._at[target] > self._at[source], (target, move not in self._legal)
        far = _LANE * (self._lanes[down].index(lane) + 1)
        edge, beside = (end.x + end.width, end.x + end.width + far) if down else (end.x, end.x - _ENTRY - far)
        out, into = self._port(source, ("out", lane), down=down), self._port(target, ("in", lane), down=down)
        return (edge, out), (beside, out), (beside, into), (edge, into)

    def _port(self, name: str, port: "_Port", *, down: bool) -> float:
        """Return the height at which a move ends on the side of the box."""
        ports, box = self._ports(name, down=down), self._boxes[name]
        return round(box.y + box.height * (ports.index(port) + 1) / (len(ports) + 1), 2)

    def _ports(self, name: str, *, down: bool) -> list["_Port"]:
        """Return the ends of moves on one side of a box, ordered so that none cross.

        On the right what comes in from above, then what leaves, to the outermost lane first. On the left, where all
        runs upwards, the other way round, below where a payment begins.
        """
        lanes = self._lanes[down]
        leaving = {lane for source, lane in self._beside(down=down) if source == name}
        ports: list[_Port] = [("in", lane) for lane in lanes if lane[0] == name]
        ports += [("out", lane) for lane in sorted(leaving, key=lanes.index, reverse=True)]
        if down:
            return ports
        return [*([_BEGINS] if (None, name) in self._all else []), *reversed(ports)]


_Port = tuple[str, _Lane]
_BEGINS: Final[_Port] = ("in", ("", False))


def _texts(lines: Sequence[str], x: float, y: float) -> Iterator[TextLine]:
    for number, words in enumerate(lines):
        yield TextLine(words, x, y + 1 + _LINE * (number + 1), TEXT_FONT_PX if number else NAME_FONT_PX)


def _width(lines: Sequence[str]) -> float:
    sizes = (TEXT_FONT_PX if number else NAME_FONT_PX for number in range(len(lines)))
    return float(round(max(len(words) * size * CHAR_WIDTH_RATIO for words, size in zip(lines, sizes, strict=True))))
