"""Lifecycles as data: a provider's states, their phases, and the legal moves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from statemachine.errors import InvalidLifecycle
from statemachine.phases import FULFILMENT_PHASES, Effect, Phase

#: Ours, in every lifecycle: the provider refused the create call, so there is nothing at the provider.
#: Left when a later create with the same identity succeeds.
NOT_CREATED: Final = "not_created"

_ENDED = frozenset({Phase.SETTLED, Phase.FAILED, Phase.CANCELLED, Phase.EXPIRED, Phase.REFUNDED})


@dataclass(frozen=True, slots=True)
class State:
    """One state, in the provider's own word, with what it means to us."""

    name: str
    phase: Phase
    terminal: bool = False  #: nothing legal follows; asking ends


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
    source: str = ""  #: where the provider says so
    subject: str = "payment"  #: what its effects are named after; "payment" only where money comes in (ADR 0014)
    by_name: Mapping[str, State] = field(init=False, repr=False)
    is_paid_first: bool = field(init=False, repr=False)  #: what is refunded was paid; else it is a refund itself

    def __post_init__(self) -> None:
        names = [state.name for state in self.states]
        faults = [f"state {name!r} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if NOT_CREATED in names:
            faults.append(f"{NOT_CREATED!r} is ours")
        used = {*self.initial, *self.moves, *(t for targets in self.moves.values() for t in targets)}
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
        if not self.initial:
            faults.append("there is no initial state")
        if faults:
            raise InvalidLifecycle(f"lifecycle {self.name}: " + "; ".join(faults))
        ours = State(NOT_CREATED, Phase.FAILED)
        object.__setattr__(self, "by_name", {s.name: s for s in (*self.states, ours)})
        object.__setattr__(self, "is_paid_first", any(s.phase in FULFILMENT_PHASES for s in self.states))

    def phase(self, state: str | None) -> Phase:
        """Return the phase of a state; a payment without a state is open."""
        return Phase.OPEN if state is None else self.by_name[state].phase

    def is_terminal(self, state: str | None) -> bool:
        """Return whether nothing legal follows, so that asking may end."""
        return state is not None and (state == NOT_CREATED or self.by_name[state].terminal)

    def effect_name(self, effect: Effect) -> str:
        """Return the effect's name for sinks, such as "payment.paid" or "payout.paid"."""
        return f"{self.subject}.{effect.value.partition('.')[2]}"

    def knows(self, state: str) -> bool:
        """Return whether the provider's word is a state of this lifecycle."""
        return state in self.by_name
