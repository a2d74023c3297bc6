"""Captures, refunds, disputes and returns to paid through the real inbox, worker, outbox and audit."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from providers.contract import Answer
from statemachine.phases import Effect, PartialCapture, Phase, Source
from statemachine.sums import SUM_NAMES, PartKind
from storage import inbox, outbox, payments, transitions
from storage.ids import new_id
from storage.tables import InboxMessage, OutboxMessage, Payment, Transition
from tests.property.test_effects import NOT, Provider
from tests.support.lifecycles import CARD, DEBIT
from tests.support.made_up import MadeUpProvider, body_of
from tests.support.pipeline_world import SINKS, World
from tests.unit.statemachine.oracle import OF_MONEY, words_of

#: Histories of each lifecycle in the short run and in the long one.
_SHORT, _LONG = 60, 2_000

#: How many histories share one database, and so one audit.
_A_WORLD = 20


class History:
    """One made-up payment, told with loss, repeats, reordering and crashes, and asked about at the end."""

    def __init__(self, world: World, kind: str, seed: int) -> None:
        self.world, self.kind = world, kind
        self.provider = Provider({"card": CARD, "debit": DEBIT}[kind], seed)
        self.rng = random.Random(seed)
        self.account, self.ref = f"{kind}-{seed}", f"{kind}_{seed}"
        world.join(self.account, MadeUpProvider())
        world.rules[self.account] = replace(world.rules[self.account], partial_capture=PartialCapture.ACCEPT)

    def run(self) -> None:
        rng, provider = self.rng, self.provider
        provider.live()
        if provider.state is None:
            return
        self.world.clock.advance(max((provider.at - self.world.clock()).total_seconds() + 60, 0))
        pushed = [self._message(seen) for seen in provider.pushed if rng.random() < 0.7]
        pushed += [rng.choice(pushed) for _ in range(rng.randint(0, 2)) if pushed]
        if rng.random() < 0.7:
            rng.shuffle(pushed)
        for message in pushed:
            self.world.record(message)
            if rng.random() < 0.5:
                with self.world.crashing(rng.randint(1, 12) if rng.random() < 0.3 else None):
                    self.world.worker().step()
        self.world.settle()
        self._ask()
        owed = self.check()
        self._ask()
        assert self.check() == owed, "the same answer again makes nothing due"

    def _message(self, seen) -> InboxMessage:
        serial = new_id()
        return inbox.new_message(
            account=self.account,
            source=Source.WEBHOOK.value,
            delivery_key=serial,
            body=body_of(self.ref, self.kind, seen, serial),
            received_at=self.world.clock(),
        )

    def _ask(self) -> None:
        self.world.clock.advance(5)
        now = self.world.clock()
        body = body_of(self.ref, self.kind, self.provider.whole(Source.POLL), new_id())
        answer = Answer(200, body, now, self.kind, self.ref)
        self.world.record(self.world.answered(self.account, Source.POLL, answer, None))
        self.world.settle()

    def check(self) -> list[tuple[str, int]]:
        """State, sums and phase are the truth; what is owed is what the chain and the parts say, in order."""
        with self.world.database.read() as unit:
            (payment,) = payments.find(unit, account=self.account)
            chain = transitions.of_payment(unit, payment.id)
            owed = sorted(outbox.of_payment(unit, payment.id), key=lambda message: message.number)
        provider = self.provider
        assert (payment.state, payment.phase, payment.review) == (provider.state, provider.phase.value, None)
        if provider.manner != NOT:
            for name in SUM_NAMES:
                truth = getattr(provider.sums(), name)
                assert truth is None or truth == (getattr(payment, name) or 0), f"{name} is not {truth}"
        first, second = ([message for message in owed if message.sink == sink] for sink in SINKS)
        told = [(message.effect, message.occurrence) for message in first]
        assert sorted(told) == sorted((message.effect, message.occurrence) for message in second)
        self._check_words(payment, chain, first)
        return told

    def _check_words(self, payment: Payment, chain: list[Transition], owed: list[OutboxMessage]) -> None:
        phases = [Phase(link.phase) for link in chain]
        said = [(Effect(message.effect), message.occurrence) for message in owed]
        assert [each for each in said if each[0] not in OF_MONEY] == words_of(phases)
        for effect in OF_MONEY:
            assert [n for each, n in said if each is effect] == list(range(sum(each is effect for each, _ in said)))
        last = {
            (part["kind"], part["name"]): part["status"]
            for m in owed
            if (part := json.loads(m.payload)["data"]["part"]) is not None
        }
        for part in payment.parts or ():
            if part["kind"] != PartKind.CAPTURE:
                assert last[part["kind"], part["name"]] == part["status"], "the last word of a part is not true"


def tell(template: Path, path: Path, kind: str, seeds: range) -> None:
    """Histories in one database, and its audit."""
    world = World(template, path)
    try:
        for seed in seeds:
            history = History(world, kind, seed)
            try:
                history.run()
            except AssertionError as fault:
                raise AssertionError(f"history {kind} seed {seed}: {fault}") from fault
        assert world.audit().first is None
    finally:
        world.close()


@pytest.mark.parametrize("kind", ["card", "debit"])
def test_money_ends_where_the_provider_has_it_and_each_change_was_told(template, tmp_path, kind):
    """Loss, repeats, reordering, crashes; then one answer: sums, phase, effects in order and the audit are right."""
    for first in range(0, _SHORT, _A_WORLD):
        tell(template, tmp_path / f"{first}.db", kind, range(first, first + _A_WORLD))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["card", "debit"])
def test_thousands_of_histories_of_money(template, tmp_path, kind):
    """The same for 2,000 histories of each."""
    first = random.randrange(2**32)
    print(f"seeds from {first}")
    for start in range(first, first + _LONG, _A_WORLD):
        tell(template, tmp_path / f"{start}.db", kind, range(start, start + _A_WORLD))
