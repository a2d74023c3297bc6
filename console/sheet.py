"""Where the states and moves of a lifecycle stand on the sheet. Pure.

States stand in one column, in the order in which a payment may pass them, and the ends below. A move to the next state
is a straight arrow. Any other runs beside the column in its target's own lane: down on the right, back up on the left.
So moves join only on their way to the same state, and none runs over a box or along a move to another state.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from console.drawing import Arrow, Box, Drawing, Passage, Point, Step, Text, steps
from statemachine.lifecycle import NOT_CREATED, Lifecycle, State
from statemachine.phases import Phase

#: Of a fixed-width face, in shares of its size: as wide as any of those that are asked for.
ADVANCE: Final = 0.62
NAME_SIZE: Final = 13
WORDS_SIZE: Final = 11

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


def draw(lifecycle: Lifecycle, passages: Sequence[Passage] = (), state: str | None = None) -> Drawing:
    """The lifecycle, with the way that a payment took through it and the state in which it is; total.

    What the payment did and the lifecycle does not permit is drawn as forced, and a state that it does not know, as
    after a change of the program, stands at the end.
    """
    walked = steps(passages)
    rows = _rows(lifecycle, passages, state)
    return _Sheet(lifecycle, rows, walked, state).drawn()


def _rows(lifecycle: Lifecycle, passages: Sequence[Passage], state: str | None) -> list[State]:
    """The states from top to bottom."""
    moving = [each for each in lifecycle.states if not each.terminal]
    ended = sorted((each for each in lifecycle.states if each.terminal), key=lambda each: _ENDS.index(each.phase))
    phases = {passage.target: passage.phase for passage in passages}
    names = {name for step in steps(passages) for name in (step.source, step.target)} | {state}
    ours = [lifecycle.by_name[NOT_CREATED]] if NOT_CREATED in names else []
    unknown = [
        State(name, _phase(phases.get(name, "")))
        for name in sorted(each for each in names if each is not None)
        if not lifecycle.knows(name)
    ]
    return [*ours, *moving, *ended, *unknown]


def _phase(word: str) -> Phase:
    return Phase(word) if word in list(Phase) else Phase.OPEN


class _Sheet:
    """One drawing in the making."""

    def __init__(self, lifecycle: Lifecycle, rows: list[State], walked: list[Step], state: str | None) -> None:
        self._lifecycle, self._rows, self._walked, self._state = lifecycle, rows, walked, state
        self._at = {row.name: number for number, row in enumerate(rows)}
        self._steps: dict[_Move, list[Step]] = {}
        for step in walked:
            self._steps.setdefault((step.source, step.target), []).append(step)
        self._legal = dict.fromkeys(self._moves())
        self._all = [*self._legal, *(move for move in self._steps if move not in self._legal)]
        self._lanes = {down: self._laned(down=down) for down in (True, False)}  #: the nearest to the column first
        self._boxes = self._placed()

    def drawn(self) -> Drawing:
        """The sheet."""
        arrows = sorted(map(self._arrow, self._all), key=lambda arrow: ("", "skipped", "passed").index(arrow.walked))
        last = max(self._boxes.values(), key=lambda box: box.y)
        width = last.x + last.width + _LANE * (len(self._lanes[True]) + 1) + _MARGIN
        height = last.y + last.height + _MARGIN
        return Drawing(self._lifecycle.name, width, height, tuple(self._boxes.values()), tuple(arrows))

    def _moves(self) -> Iterator[_Move]:
        """Every legal move between the states that are drawn."""
        yield from ((None, name) for name in self._lifecycle.initial)
        for source, targets in self._lifecycle.moves.items():
            yield from ((source, target) for target in targets)
        if NOT_CREATED in self._at:
            yield (None, NOT_CREATED)
            yield from ((NOT_CREATED, name) for name in self._lifecycle.initial)

    def _laned(self, *, down: bool) -> list[_Lane]:
        """The lanes of one side. A nearer target has a nearer lane, and what is against the lifecycle runs outside."""
        lanes = {lane for _, lane in self._beside(down=down)}
        return sorted(lanes, key=lambda lane: (lane[1], self._at[lane[0]] * (1 if down else -1)))

    def _beside(self, *, down: bool) -> Iterator[tuple[str, _Lane]]:
        """Source and lane of every move that runs on that side."""
        for source, target in self._all:
            far = 0 if source is None else self._at[target] - self._at[source]
            if source is not None and (far > 1 if down else far <= 0):
                yield source, (target, (source, target) not in self._legal)

    # -- boxes --------------------------------------------------------------------------------------------------

    def _placed(self) -> dict[str, Box]:
        lines = {row.name: self._lines(row) for row in self._rows}
        width = 2 * _PADDING + max(_width(words) for words in lines.values())
        x = float(_MARGIN + _ENTRY + (_LANE * (len(self._lanes[False]) + 1) if self._lanes[False] else 0))
        y, boxes = float(_MARGIN), {}
        for row in self._rows:
            words = lines[row.name]
            ports = max(len(self._ports(row.name, down=down)) for down in (True, False))
            box = Box(
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
        """What a box says: the state's name, what it means, and when the payment entered it last."""
        entries = [step for step in self._walked if step.target == row.name]
        told = [step for step in entries if not step.skips]
        lines = [row.name, row.phase.value]
        if told:
            often = f" ({len(told)}x)" if len(told) > 1 else ""
            at = told[-1].at
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

    def _arrow(self, move: _Move) -> Arrow:
        taken = self._steps.get(move, [])
        walked = "" if not taken else "skipped" if all(step.skips for step in taken) else "passed"
        numbers = tuple(step.number for step in taken)
        return Arrow(*move, self._way(move), walked, move not in self._legal, numbers)

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
        """Where on the side of the box a move ends."""
        ports, box = self._ports(name, down=down), self._boxes[name]
        return round(box.y + box.height * (ports.index(port) + 1) / (len(ports) + 1), 2)

    def _ports(self, name: str, *, down: bool) -> list["_Port"]:
        """The ends of moves on one side of a box, from top to bottom, so that no two of its own cross.

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


def _texts(lines: Sequence[str], x: float, y: float) -> Iterator[Text]:
    for number, words in enumerate(lines):
        yield Text(words, x, y + 1 + _LINE * (number + 1), WORDS_SIZE if number else NAME_SIZE)


def _width(lines: Sequence[str]) -> float:
    sizes = (WORDS_SIZE if number else NAME_SIZE for number in range(len(lines)))
    return float(round(max(len(words) * size * ADVANCE for words, size in zip(lines, sizes, strict=True))))
