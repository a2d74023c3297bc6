"""Legal moves and walks of a lifecycle; the only user of `transitions`.

Measured on 0.9.3 and hidden here: a missing arrow raises MachineError, an unknown event AttributeError or KeyError, an
unknown state ValueError; `add_model` costs more than a trigger, and a new Machine more than both. So there is one
Machine per lifecycle, it owns no model, and every answer is asked of it once, from every state to every other, and kept
in a table (ADR 0003).
"""

from collections import deque
from collections.abc import Set as AbstractSet
from functools import cache

from transitions import Machine, MachineError

from statemachine.errors import IllegalMove
from statemachine.lifecycle import NOT_CREATED, LateMove, Lifecycle

_START = "(start)"


class _Subject:
    """Minimal model for the library: nothing but a state."""

    __slots__ = ("state",)

    def __init__(self, state: str) -> None:
        self.state = state


class Moves:
    """Legal moves and shortest walks of one lifecycle, as its Machine permits them."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._names = (_START, *lifecycle.by_name)
        self._machine = Machine(model=None, states=list(self._names), initial=_START, auto_transitions=False)
        for source, targets in lifecycle.moves.items():
            for target in targets:
                self._machine.add_transition(target, source, target)
        for source, late in lifecycle.late_moves.items():
            for each in late:
                self._machine.add_transition(each.target, source, each.target)
        for first in lifecycle.initial:
            self._machine.add_transition(first, [_START, NOT_CREATED], first)
        self._machine.add_transition(NOT_CREATED, _START, NOT_CREATED)
        order = dict(lifecycle.moves)
        order[_START] = (*lifecycle.initial, NOT_CREATED)
        order[NOT_CREATED] = lifecycle.initial
        self._arrows = {
            (start, target) for start in self._names for target in self._names if self._machine_moves(start, target)
        }
        self._walks = self._all_walks(order)
        self._only_late: AbstractSet[tuple[str, str]] = frozenset()
        if lifecycle.late_moves:
            for source, late in lifecycle.late_moves.items():
                order[source] = (*order.get(source, ()), *(each.target for each in late))
            late_walks = self._all_walks(order)
            self._only_late = late_walks.keys() - self._walks.keys()
            self._walks = late_walks | self._walks
        self._late = {(source, each.target): each for source, late in lifecycle.late_moves.items() for each in late}

    def _all_walks(self, order: dict[str, tuple[str, ...]]) -> dict[tuple[str, str], tuple[str, ...]]:
        return {(start, end): walk for start in self._names for end, walk in self._walks_from(start, order).items()}

    def fire(self, state: str | None, target: str) -> str:
        """Return the target if the Machine permits the move; raises IllegalMove if not."""
        if (state or _START, target) not in self._arrows:
            raise IllegalMove(f"no legal move from {state!r} to {target!r}")
        return target

    def _machine_moves(self, start: str, target: str) -> bool:
        """Return whether the Machine itself makes this one step."""
        subject = _Subject(start)
        event = self._machine.events.get(target)
        try:
            return event is not None and bool(event.trigger(subject)) and subject.state == target
        except MachineError:  # no arrow
            return False

    def walk(self, state: str | None, target: str) -> tuple[str, ...] | None:
        """Return the shortest legal walk to another state, its end included, or None.

        Late moves are part of it only where there is no walk without them.
        """
        return self._walks.get((state or _START, target))

    def is_late(self, state: str | None, target: str) -> bool:
        """Return whether only late moves lead there."""
        return (state or _START, target) in self._only_late

    def late_moves(self, state: str | None, walk: tuple[str, ...]) -> tuple[LateMove, ...]:
        """Return the late moves on a walk from the state."""
        if not self._late:
            return ()
        steps = zip((state or _START, *walk), walk, strict=False)
        return tuple(self._late[step] for step in steps if step in self._late)

    def _walks_from(self, start: str, order: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        queue: deque[tuple[str, tuple[str, ...]]] = deque([(start, ())])
        seen = {start}
        while queue:
            here, trail = queue.popleft()
            for target in order.get(here, ()):
                if target in seen:
                    continue
                self.fire(None if here == _START else here, target)
                seen.add(target)
                found[target] = (*trail, target)
                queue.append((target, found[target]))
        return found


@cache
def moves_of(lifecycle: Lifecycle) -> Moves:
    """Return a lifecycle's moves, compiled on first use and shared by all threads."""
    return Moves(lifecycle)
