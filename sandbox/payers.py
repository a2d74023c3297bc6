"""Simulated payers, with plans that follow from the seed and the reference."""

import math
from dataclasses import dataclass
from random import Random

from sandbox.config import Payers
from sandbox.provider import Provider, Stage
from sandbox.world import IllegalMove, Resource


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a payer: actions, each with seconds after the one before.

    Seconds are of the provider's time.
    """

    outcome: str
    steps: tuple[tuple[float, str], ...]


class PayerSimulation:
    """Runs the plans; a plan ends at a move that has become impossible."""

    def __init__(self, stage: Stage, providers: dict[str, Provider]) -> None:
        self._stage, self._providers = stage, providers
        self._payers = stage.config.payers
        self._open: dict[Resource, Plan] = {}
        self._late: set[Resource] = set()

    @property
    def pending(self) -> int:
        """Resources whose payer, or whose late money, is still to come."""
        return len(self._open) + len(self._late)

    def created(self, resource: Resource) -> None:
        """Plan what becomes of a new resource."""
        if self._payers is None or (self._payers.leave and resource.reference.startswith(self._payers.leave)):
            return
        plan = plan_for(self._stage, self._providers[resource.provider], resource, self._payers)
        self._open[resource] = plan
        if plan.steps:
            self._next(resource, plan, 0)

    def moved(self, resource: Resource, before: str) -> None:
        """Drop the plan of an ended resource, and draw whether money comes late."""
        lifecycle, plan = self._stage.world.lifecycle(resource), self._open.get(resource)
        if plan is not None and not plan.steps:
            del self._open[resource]
        if resource.state not in lifecycle.unpaid_ends:
            return
        self._open.pop(resource, None)
        if not resource.has_late_money and self._stage.dice.late_money(resource.name):
            self._late.add(resource)
            seconds = self._stage.config.scaled(self._stage.dice.faults.late_money_seconds)
            self._stage.timers.after(seconds, self._pay_late, resource)

    def _next(self, resource: Resource, plan: Plan, number: int) -> None:
        seconds = self._stage.config.scaled(plan.steps[number][0])
        self._stage.timers.after(seconds, self._step, resource, plan, number)

    def _step(self, resource: Resource, plan: Plan, number: int) -> None:
        action = plan.steps[number][1]
        name, _, value = action.partition(":")
        try:
            self._providers[resource.provider].act(resource, name, {"state": value})
        except IllegalMove:
            self._open.pop(resource, None)
            return
        if number + 1 < len(plan.steps):
            self._next(resource, plan, number + 1)
        else:
            self._open.pop(resource, None)

    def _pay_late(self, resource: Resource) -> None:
        self._late.discard(resource)
        if resource.state in self._stage.world.lifecycle(resource).unpaid_ends:
            self._providers[resource.provider].act(resource, "late_pay", {})


def plan_for(stage: Stage, provider: Provider, resource: Resource, payers: Payers) -> Plan:
    """Build the plan of a resource from seed, provider and reference.

    Steps are `move:STATE` or an action's name.
    """
    rng = stage.dice.draw("payer", resource.name)
    weights = (payers.pay, payers.decline, payers.cancel, payers.expire)
    outcome = rng.choices(("pay", "decline", "cancel", "expire"), weights)[0]
    moves = provider.moves_for(resource, outcome)
    if moves is None:
        outcome, moves = "expire", provider.moves_for(resource, "expire")
    if moves is None:
        outcome, moves = "pay", provider.moves_for(resource, "pay")
    if outcome == "expire" and resource.expires_at is not None:
        return Plan(outcome, ())
    steps: list[tuple[float, str]] = []
    first = _lognormal(rng, payers.median_seconds, payers.sigma)
    lifecycle, state = stage.world.lifecycle(resource), resource.state
    for number, to in enumerate(moves or ()):
        rest = (moves or [])[number + 1 :]
        may_skip = bool(rest) and lifecycle.allows(state, rest[0])
        if may_skip and rng.random() < payers.skip:
            continue
        wait = _lognormal(rng, payers.step_median_seconds, payers.sigma) if steps else first
        steps.append((wait, f"move:{to}"))
        state = to
    if rng.random() < payers.hiccup and "error" in provider.extra_actions and len(steps) > 1:
        steps[1:1] = [(0.0, "error"), (_lognormal(rng, payers.step_median_seconds, payers.sigma), "resolve")]
    later = _lognormal(rng, payers.after_median_seconds, payers.sigma)
    if outcome == "pay" and provider.name.startswith("payfield") and rng.random() < payers.refund:
        steps.append((later, "refund"))
    if outcome == "pay" and provider.name == "stable_genius" and rng.random() < payers.settle:
        steps.append((later, "settle"))
    return Plan(outcome, tuple(steps))


def _lognormal(rng: Random, median: float, sigma: float) -> float:
    return rng.lognormvariate(math.log(median), sigma) if median > 0 else 0.0
