"""One wish with several attempts and names, under loss, repeats, reordering and crashes."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from providers.contract import Answer, Delivery
from receiver.intake import verified_message
from statemachine import own_statements
from statemachine.observation import Observation
from statemachine.phases import MONEY_PHASES, Phase, Review, Source
from storage import outbox, payments
from storage.ids import new_id
from storage.tables import OutboxMessage, Payment
from tests.support.builders import our_message
from tests.support.lifecycles import ORDER
from tests.support.made_up import OrderProvider, body_of
from tests.support.pipeline_world import SINKS, World

ASKED_MINOR = 1130

_SHORT = 20
_LONG = 2000
_A_WORLD = 20

_PROVIDER = OrderProvider()


@dataclass
class Tried:
    """One attempt at the provider, and its way through its states."""

    ref: str
    walk: list[str]
    step: int = 0
    states: list[str] = field(default_factory=list)  #: that it has had

    @property
    def state(self) -> str:
        return self.walk[self.step]

    @property
    def charge(self) -> str:
        return f"ch_{self.ref}"


class Wish:
    """An order, its attempts, and everything that is said of them here."""

    def __init__(self, world: World, seed: int) -> None:
        self.rng = rng = random.Random(f"attempts/{seed}")
        self.world, self.account = world, f"orders-{seed}"
        self.member = world.join(self.account, _PROVIDER)
        self.member.client.present = lambda _kind, ref: self._answer(self._named(ref))
        self.reference, self.payment_id = f"order-{seed}", new_id()
        self.minor = ASKED_MINOR
        self.is_ours = rng.random() < 0.6
        self.tried = [Tried(f"at{seed}-{nth}", self._legal_walk()) for nth in range(rng.choice((1, 2, 2, 3)))]
        self.begun = self.tried[:1]
        self.air: list[bytes] = []
        self.sent: list[bytes] = []
        self.trail: list[str] = []

    def _legal_walk(self) -> list[str]:
        state, walk = "created", ["created"]
        while state in ORDER.moves and self.rng.random() < 0.85:
            state = self.rng.choice(ORDER.moves[state])
            walk.append(state)
        return walk

    # -- the provider

    def _named(self, ref: str) -> Tried:
        return next(each for each in self.tried if each.ref == ref)

    def _say(self, one: Tried) -> bytes:
        names = (one.charge,) if one.step else ()
        seen = Observation(
            Source.WEBHOOK,
            status=one.state,
            amount_minor=self.minor,
            reference=self.reference,
            names=names,
            as_of=self.world.clock(),
        )
        return body_of(one.ref, "order", seen, new_id())

    def _answer(self, one: Tried) -> Answer:
        return Answer(200, self._say(one), self.world.clock(), "order", one.ref)

    def move(self) -> None:
        """An attempt moves on, or another begins; the provider sends word of it, and of its charge."""
        waiting = [each for each in self.tried if each not in self.begun]
        if waiting and self.rng.random() < 0.4:
            one = waiting[0]
            self.begun.append(one)
        else:
            moving = [each for each in self.begun if each.step + 1 < len(each.walk)]
            if not moving:
                return
            one = self.rng.choice(moving)
            one.step += 1
        one.states.append(one.state)
        if self.rng.random() < 0.7:
            self.air.append(self._say(one))
        if one.step and self.rng.random() < 0.3:
            seen = Observation(Source.WEBHOOK, status="taken", names=(one.ref,), as_of=self.world.clock())
            self.air.append(body_of(one.charge, "charge", seen, new_id()))

    # -- what may happen here

    def _crash_at(self) -> int | None:
        return self.rng.randint(1, 14) if self.rng.random() < 0.2 else None

    def want(self) -> None:
        """The merchant's wish, and the answer with the id of the first attempt."""
        wanted = own_statements.CreateWanted("order", self.reference, ASKED_MINOR, "USD")
        at = self.world.clock()
        key = f"create:{self.reference}"
        self.world.record(our_message(wanted, about=self.payment_id, at=at, account=self.account, delivery_key=key))
        self.world.settle()
        answer = Answer(200, self._say(self.tried[0]), at, "order", None)
        self.world.record(self.world.answered(self.account, Source.CREATE, answer, self.payment_id))
        self.world.settle()

    def deliver(self) -> None:
        if self.air:
            body = self.air.pop(self.rng.randrange(len(self.air)))
            self.sent.append(body)
            self._receive(body)

    def redeliver(self) -> None:
        if self.sent:
            self._receive(self.rng.choice(self.sent))

    def _receive(self, body: bytes) -> None:
        now = self.world.clock()
        self.world.record(verified_message(self.member.receiving, None, None, Delivery(body, ()), now))

    def work(self) -> None:
        with self.world.crashing(self._crash_at()):
            self.world.worker().step()

    def poll(self) -> None:
        with self.world.crashing(self._crash_at()):
            self.world.run(self.world.poller(self.account).step())

    def jump(self) -> None:
        self.world.clock.advance(self.rng.choice((1, 2, 30, 61, 130, 4000)))

    def run(self) -> None:
        """Everything happens in some order; then the provider is asked about each attempt once."""
        if self.is_ours:
            self.want()
        acts: tuple[Callable[[], None], ...] = (
            *((self.move,) * 5),
            *((self.deliver,) * 5),
            *((self.work,) * 4),
            *(self.redeliver, self.poll, self.jump, self.jump),
        )
        for _ in range(self.rng.randint(6, 30)):
            act = self.rng.choice(acts)
            self.trail.append(act.__name__)
            act()
        self.world.clock.advance(600)
        self.world.settle()
        for one in self.begun:
            self.world.record(self.world.answered(self.account, Source.POLL, self._answer(one), None))
            self.world.settle()
            self.world.clock.advance(5)
        self.check()

    # -- what must hold

    def _owed(self, payment: Payment, effect: str) -> list[OutboxMessage]:
        with self.world.database.read() as unit:
            found = outbox.of_payment(unit, payment.id)
        return [message for message in found if message.effect == effect and message.sink == SINKS[0]]

    def check(self) -> None:
        """One payment, found by every name; fulfilled once, and paid twice where that is so."""
        with self.world.database.read() as unit:
            found = payments.find(unit, account=self.account)
        assert len(found) == 1, f"{len(found)} payments of one wish after {self.trail}"
        payment = found[0]
        phases = [ORDER.phase(one.state) for one in self.begun]
        paid = [phase for phase in phases if phase in MONEY_PHASES]
        ever_paid = [one for one in self.begun if any(ORDER.phase(state) in MONEY_PHASES for state in one.states)]
        fulfilled = len(self._owed(payment, "payment.paid"))
        assert fulfilled <= 1, "fulfilled twice"
        if paid:
            assert fulfilled == 1, f"paid, and never fulfilled after {self.trail}"
            assert Phase(payment.phase) in MONEY_PHASES
        elif Phase.REFUNDED not in phases and not ever_paid:
            assert fulfilled == 0, "fulfilled without money"
            assert not any(Phase(payment.phase) is each for each in (*MONEY_PHASES, Phase.REFUNDED))
        reviews = [
            json.loads(each.payload)["data"]["review"] for each in self._owed(payment, "payment.review_required")
        ]
        if len(paid) > 1:
            assert Review.PAID_TWICE in reviews, f"paid twice, and nobody was told after {self.trail}"
        if len(ever_paid) < 2:
            assert Review.PAID_TWICE not in reviews, "nobody paid twice"
        if not ever_paid and any(phase in (Phase.OPEN, Phase.PROCESSING, Phase.AUTHORISED) for phase in phases):
            assert payment.phase in (Phase.OPEN, Phase.PROCESSING, Phase.AUTHORISED), "an open attempt is left"
        names = {payment.provider_ref, *(entry["name"] for entry in payment.names or ())}
        assert {one.ref for one in self.begun} <= names
        assert {one.charge for one in self.begun if one.step} <= names


def tell(template: Path, path: Path, seeds: range) -> None:
    """Wishes in one database, and its audit."""
    world = World(template, path)
    try:
        for seed in seeds:
            try:
                Wish(world, seed).run()
            except AssertionError as fault:
                raise AssertionError(f"wish with seed {seed}: {fault}") from fault
        assert world.audit().first is None
    finally:
        world.close()


def test_a_wish_of_several_attempts_is_fulfilled_once_and_paid_twice_is_seen(template, tmp_path):
    """Loss, repeats, reordering, crashes; then one answer for each attempt: effects and reviews are right."""
    for first in range(0, _SHORT, _A_WORLD):
        tell(template, tmp_path / f"{first}.db", range(first, first + _A_WORLD))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_wishes(template, tmp_path):
    """The same for 2,000 wishes."""
    first = random.randrange(2**32)
    print(f"seeds from {first}")
    for start in range(first, first + _LONG, _A_WORLD):
        tell(template, tmp_path / f"{start}.db", range(start, start + _A_WORLD))
