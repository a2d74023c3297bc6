"""Lifecycles as data: a provider's states, their phases, and the legal moves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from statemachine.errors import InvalidLifecycle
from statemachine.phases import MONEY_PHASES, Effect, Phase

#: Ours, in every lifecycle: the provider refused the create call, so there is nothing at the provider.
#: Left when a later create with the same identity succeeds.
NOT_CREATED: Final = "not_created"

_ENDED = frozenset({Phase.SETTLED, Phase.FAILED, Phase.CANCELLED, Phase.EXPIRED, Phase.REFUNDED})


@dataclass(frozen=True, slots=True)
class State:
    """One state, in the provider's own word, with what it means to us."""

    name: str
    phase: Phase
    terminal: bool = False  #: nothing is expected to follow; asking ends, but for late checks
    late_checks: tuple[timedelta, ...] = ()  #: ages of the state at which the provider is asked again all the same


class LatePolicy(StrEnum):
    """Consequence of a late move."""

    ACCEPT = "accept"  #: as from any other move
    REVIEW = "review"  #: the state moves, goods wait for a person


@dataclass(frozen=True, slots=True)
class LateMove:
    """A move that is known to happen and that nobody expects, such as expired -> paid."""

    target: str
    policy: LatePolicy = LatePolicy.REVIEW
    within: timedelta | None = None  #: of the state's beginning; later, a person sees it whatever the policy


@dataclass(frozen=True, slots=True, eq=False)
class Lifecycle:
    """Lifecycle of one kind of resource at one provider.

    It is checked when it is built (InvalidLifecycle).

    A payment that nobody has told us about yet has no state (None). Its first known state may be any that is
    reachable from one of `initial`, since events are lost.
    """

    name: str  #: "<provider>.<kind>"
    initial: tuple[str, ...]
    states: tuple[State, ...]
    moves: Mapping[str, tuple[str, ...]]  #: source -> targets, in the order in which a walk prefers them
    late_moves: Mapping[str, tuple[LateMove, ...]] = field(default_factory=dict)  #: only where `moves` lead nowhere
    source: str = ""  #: where the provider says so
    has_names: bool = False  #: one thing has several ids at the provider
    has_attempts: bool = False  #: another id with a known reference is another attempt at the same wish
    belongs_to: str = ""  #: the kind whose further names its ids are: it is never a payment by itself
    subject: str = "payment"  #: what its effects are named after; "payment" only where money comes in (ADR 0014)
    by_name: Mapping[str, State] = field(init=False, repr=False)
    returning: frozenset[str] = field(init=False, repr=False)  #: states that can be left and come back
    is_paid_first: bool = field(init=False, repr=False)  #: what is refunded was paid; else it is a refund itself

    def __post_init__(self) -> None:
        names = [state.name for state in self.states]
        faults = [f"state {name!r} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if NOT_CREATED in names:
            faults.append(f"{NOT_CREATED!r} is ours")
        late = {(source, move.target) for source, moves in self.late_moves.items() for move in moves}
        used = {*self.initial, *self.moves, *(t for targets in self.moves.values() for t in targets)}
        used |= {name for pair in late for name in pair}
        faults += [f"{name!r} is no state" for name in sorted(used - set(names))]
        faults += [
            f"{s.name!r} is terminal and has moves" for s in self.states if s.terminal and self.moves.get(s.name)
        ]
        faults += [
            f"{s.name!r} has no moves and is not terminal"
            for s in self.states
            if not s.terminal and not self.moves.get(s.name)
        ]
        faults += [
            f"{s.name!r} is terminal in phase {s.phase}"
            for s in self.states
            if s.terminal and s.phase not in _ENDED | {Phase.PAID}
        ]
        faults += [
            f"{source} -> {target} is a move and a late move"
            for source, target in sorted(late)
            if target in self.moves.get(source, ())
        ]
        if not self.initial:
            faults.append("there is no initial state")
        if faults:
            raise InvalidLifecycle(f"lifecycle {self.name}: " + "; ".join(faults))
        ours = State(NOT_CREATED, Phase.FAILED)
        object.__setattr__(self, "by_name", {s.name: s for s in (*self.states, ours)})
        object.__setattr__(self, "returning", frozenset(name for name in names if self._can_return(name)))
        object.__setattr__(self, "is_paid_first", any(s.phase in MONEY_PHASES for s in self.states))

    def _can_return(self, state: str) -> bool:
        """Return whether moves lead from the state back to it, late ones too."""
        seen, ahead = set[str](), [state]
        while ahead:
            here = ahead.pop()
            late = (move.target for move in self.late_moves.get(here, ()))
            for target in (*self.moves.get(here, ()), *late):
                if target == state:
                    return True
                if target not in seen:
                    seen.add(target)
                    ahead.append(target)
        return False

    def phase(self, state: str | None) -> Phase:
        """Return the phase of a state; a payment without a state is open."""
        return Phase.OPEN if state is None else self.by_name[state].phase

    def is_terminal(self, state: str | None) -> bool:
        """Return whether nothing is expected to follow, so that asking may end."""
        return state is not None and (state == NOT_CREATED or self.by_name[state].terminal)

    def effect_name(self, effect: Effect) -> str:
        """Return the effect's name for sinks, such as "payment.paid" or "payout.paid"."""
        return f"{self.subject}.{effect.value.partition('.')[2]}"

    def knows(self, state: str) -> bool:
        """Return whether the provider's word is a state of this lifecycle."""
        return state in self.by_name
