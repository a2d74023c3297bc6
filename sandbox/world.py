"""The truth: every resource with the states it has really been in."""

import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sandbox.faults import Dice
from sandbox.times import iso, now


class IllegalMove(Exception):
    """The provider does not allow this move; the resource is unchanged."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Lifecycle in the provider's words: start, moves, and states with money."""

    initial: str
    moves: Mapping[str, tuple[str, ...]]
    paid: frozenset[str]
    unpaid_ends: frozenset[str]

    def allows(self, state: str, to: str) -> bool:
        """Return whether `to` is one legal move away."""
        return to in self.moves.get(state, ())


@dataclass(slots=True, eq=False)
class Resource:
    """One payment request, intent, payin, payout, session or refund."""

    provider: str
    kind: str
    ref: str  #: what a client fetches it by
    provider_id: str
    reference: str  #: the merchant's own
    state: str
    amount_minor: int
    currency: str
    name: str  #: what seeded choices are drawn by; the same in every run that creates the same things
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    is_live: bool = False
    has_late_money: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[str, datetime]] = field(default_factory=list)
    happenings: Counter[str] = field(default_factory=Counter)

    def nth(self, what: str) -> int:
        """Count one more `what` of this resource; the first is 1."""
        self.happenings[what] += 1
        return self.happenings[what]


class World:
    """All resources; they move as their lifecycles allow, unless forced."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._lifecycles: dict[tuple[str, str], Lifecycle] = {}
        self._resources: dict[tuple[str, str, str], Resource] = {}
        self._by_provider_id: dict[tuple[str, str], Resource] = {}
        self._names: Counter[tuple[str, str, str]] = Counter()
        self._numbers: Counter[str] = Counter()
        self.on_created: list[Callable[[Resource], None]] = []
        self.on_moved: list[Callable[[Resource, str], None]] = []

    def declare(self, provider: str, kind: str, lifecycle: Lifecycle) -> None:
        """Teach the world how resources of this kind live."""
        self._lifecycles[provider, kind] = lifecycle

    def lifecycle(self, resource: Resource) -> Lifecycle:
        """Return the lifecycle of this resource."""
        return self._lifecycles[resource.provider, resource.kind]

    def name(self, provider: str, kind: str, reference: str) -> str:
        """Return a reproducible name for the next resource with this reference."""
        self._names[provider, kind, reference] += 1
        return f"{provider}/{kind}/{reference}/{self._names[provider, kind, reference]}"

    def uuid(self, name: str, purpose: str = "id") -> str:
        """Return a UUID that the seed and `name` decide."""
        return str(uuid.UUID(int=self._dice.draw("uuid", purpose, name).getrandbits(128), version=4))

    def hex(self, name: str, digits: int, purpose: str) -> str:
        """`digits` hexadecimal digits that the seed and `name` decide."""
        return f"{self._dice.draw('hex', purpose, name).getrandbits(digits * 4):0{digits}x}"

    def number(self, provider: str) -> int:
        """Return the next number in the provider's sequence."""
        self._numbers[provider] += 1
        return 10_000 + self._numbers[provider]

    def add(self, resource: Resource) -> Resource:
        """Begin a resource's history; an id that exists already is a mistake of ours."""
        key = (resource.provider, resource.kind, resource.ref)
        if key in self._resources:
            msg = f"{key} exists"
            raise ValueError(msg)
        resource.history.append((resource.state, resource.created_at))
        self._resources[key] = resource
        self._by_provider_id[resource.provider, resource.provider_id] = resource
        for tell in self.on_created:
            tell(resource)
        return resource

    def find(self, provider: str, kind: str, ref: str) -> Resource | None:
        """Return the resource that a client fetches by `ref`."""
        return self._resources.get((provider, kind, ref))

    def find_by_provider_id(self, provider: str, provider_id: str) -> Resource | None:
        """Return the resource with the provider's own id."""
        return self._by_provider_id.get((provider, provider_id))

    def all(self, provider: str = "", kind: str = "") -> list[Resource]:
        """Resources in order of creation, optionally of one provider or kind."""
        return [
            item for item in self._resources.values() if provider in {"", item.provider} and kind in {"", item.kind}
        ]

    def may(self, resource: Resource, to: str) -> bool:
        """Return whether the lifecycle allows this move now."""
        return self.lifecycle(resource).allows(resource.state, to)

    def move(self, resource: Resource, to: str, *, forced: bool = False) -> None:
        """Move a resource and notify its provider.

        Raises IllegalMove where the lifecycle forbids it, unless forced.
        """
        if not forced and not self.may(resource, to):
            msg = f"{resource.kind} is {resource.state}, which does not lead to {to}"
            raise IllegalMove(msg)
        before, resource.state = resource.state, to
        resource.updated_at = now()
        resource.history.append((to, resource.updated_at))
        for tell in self.on_moved:
            tell(resource, before)

    def truth(self) -> list[dict[str, Any]]:
        """Every resource as `/_control/truth` shows it."""
        return [
            {
                "provider": item.provider,
                "kind": item.kind,
                "ref": item.ref,
                "provider_id": item.provider_id,
                "reference": item.reference,
                "state": item.state,
                "amount_minor": item.amount_minor,
                "currency": item.currency,
                "ever_paid": any(state in self.lifecycle(item).paid for state, _ in item.history),
                "late_money": item.has_late_money,
                "history": [[state, iso(at)] for state, at in item.history],
            }
            for item in self._resources.values()
        ]
