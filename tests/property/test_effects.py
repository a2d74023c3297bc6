"""Sequences of effects, and sums, of lifecycles that come back to paid, with refunds, disputes and captures."""

import random
from datetime import timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from statemachine.decide import decide
from statemachine.observation import Observation, PaymentView
from statemachine.phases import Effect, Outcome, PartialCapture, Phase, Source
from statemachine.sums import SUM_NAMES, UNSAID, Part, PartKind, PartStatus, Sums
from tests.support.builders import LIFECYCLES
from tests.support.clock import START
from tests.support.lifecycles import CARD, DEBIT
from tests.unit.statemachine.oracle import OF_MONEY, words_of

ASKED = 1_000

#: How a made-up provider tells of money.
AS_PARTS, AS_SUMS, NOT = "parts", "sums", "not"


class Provider:
    """One payment at a made-up provider, and every statement that it makes."""

    def __init__(self, life, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.life, self.manner = life, rng.choice((AS_PARTS, AS_SUMS)) if life in (CARD, DEBIT) else NOT
        self.state: str | None = None
        self.at = START
        self.parts: dict[tuple[PartKind, str], Part] = {}
        self.phases: list[Phase] = []  #: in which it has been
        self.pushed: list[Observation] = []
        self.changes: list[tuple[PartKind, str, PartStatus]] = []  #: of parts, as they came

    def live(self) -> None:
        """A history of moves and movements, each with a statement."""
        for _ in range(self.rng.randint(1, 14)):
            self.at += timedelta(hours=self.rng.randint(1, 20))
            part = None
            if self.manner != NOT and self._has_been_guaranteed and self.rng.random() < 0.5:
                part = self._move_money()
            elif not self._move():
                continue
            self.phases.append(self.phase)
            self.pushed.append(self._say(part))

    @property
    def _has_been_guaranteed(self) -> bool:
        return not {Phase.AUTHORISED, Phase.PAID, Phase.SETTLED}.isdisjoint(self.phases)

    def _move(self) -> bool:
        late = [each.target for each in self.life.late_moves.get(self.state, ())] if self.rng.random() < 0.3 else []
        targets = [*(self.life.initial if self.state is None else self.life.moves.get(self.state, ())), *late]
        if targets:
            self.state = self.rng.choice(targets)
        return bool(targets)

    def _move_money(self) -> Part | None:
        rng = self.rng
        known = [part for part in self.parts.values() if rng.random() < 0.5]
        if known:
            part = replace(rng.choice(known), as_of=self.at)
            status = rng.choice([each for each in PartStatus if each is not part.status])
            if status is PartStatus.PENDING and part.kind is not PartKind.DISPUTE:
                return None
            part = replace(part, status=status)
        else:
            kind = rng.choice([*PartKind] if self.life is CARD else [PartKind.REFUND, PartKind.DISPUTE])
            room = ASKED - sum(each.amount_minor for each in self.parts.values() if each.kind is kind)
            if room <= 0:
                return None
            amount = rng.choice((room, rng.randint(1, room)))
            status = rng.choice((PartStatus.PENDING, PartStatus.DONE))
            part = Part(kind, f"{kind[:1]}{len(self.parts)}", status, amount, self.at)
        self.parts[part.kind, part.name] = part
        self.changes.append((part.kind, part.name, part.status))
        return part

    def done(self, kind: PartKind, status: PartStatus = PartStatus.DONE) -> int:
        return sum(each.amount_minor for each in self.parts.values() if (each.kind, each.status) == (kind, status))

    @property
    def has_captures(self) -> bool:
        return any(kind is PartKind.CAPTURE for kind, _ in self.parts)

    @property
    def phase(self) -> Phase:
        phase = self.life.phase(self.state)
        captured = self.done(PartKind.CAPTURE)
        if phase is Phase.AUTHORISED and captured:
            phase = Phase.PAID
        refunded, taken = self.done(PartKind.REFUND), self.done(PartKind.DISPUTE)
        if phase in (Phase.PAID, Phase.SETTLED) and refunded + taken >= (captured or ASKED):
            return Phase.FAILED if taken else Phase.REFUNDED
        return phase

    def sums(self) -> Sums:
        return Sums(
            captured_minor=self.done(PartKind.CAPTURE) if self.has_captures else None,
            refunded_minor=None if self.life.phase(self.state) is Phase.REFUNDED else self.done(PartKind.REFUND),
            charged_back_minor=self.done(PartKind.DISPUTE),
            disputed_minor=self.done(PartKind.DISPUTE, PartStatus.PENDING),
        )

    def _say(self, part: Part | None) -> Observation:
        """A push: of the whole, or of a part alone."""
        is_dated = self.rng.random() < 0.8
        at = self.at if is_dated else None
        if part is not None and self.manner == AS_PARTS and self.rng.random() < 0.5:
            return Observation(Source.WEBHOOK, parts=(part if is_dated else replace(part, as_of=None),), as_of=at)
        return self.whole(Source.WEBHOOK, at)

    def whole(self, source: Source, at=None) -> Observation:
        parts = tuple(part if at else replace(part, as_of=None) for part in self.parts.values())
        return Observation(
            source,
            status=self.state,
            amount_minor=None if self.life.phase(self.state) is Phase.REFUNDED else ASKED,
            currency="USD",
            sums=self.sums() if self.manner == AS_SUMS else UNSAID,
            parts=parts if self.manner == AS_PARTS else (),
            as_of=at,
            asked_at=at if source is Source.POLL else None,
        )


class Shop:
    """Applies decisions as the worker does, and keeps what is owed."""

    def __init__(self, life) -> None:
        self.life = life
        self.payment = PaymentView(amount_minor=ASKED, currency="USD", partial_capture=PartialCapture.ACCEPT)
        self.phases: list[Phase] = []
        self.owed: dict[tuple[Effect, int], Part | None] = {}  #: in order

    def hear(self, said: Observation, now) -> None:
        before = self.payment
        decision = decide(self.life, before, said, now)
        assert decision.outcome in (Outcome.ADVANCED, Outcome.UNCHANGED, Outcome.STALE), decision
        assert decision.review is None or "refunded:" in decision.disputed[0], decision
        decision = replace(decision, review=None)
        for due in decision.effects:
            if due.effect is not Effect.REVIEW_REQUIRED:
                self.owed.setdefault((due.effect, due.occurrence), due.part)
        known = {(part.kind, part.name): part for part in before.parts}
        known.update({(change.part.kind, change.part.name): change.part for change in decision.parts})
        moved = decision.to_state not in (None, before.state)
        self.payment = replace(
            before,
            state=decision.to_state or before.state,
            phase=decision.phase or before.phase,
            sums=before.sums if decision.sums is None else decision.sums,
            stated=before.stated if decision.stated is None else decision.stated,
            counts=before.counts if decision.counts is None else decision.counts,
            parts=tuple(known.values()),
            state_as_of=said.as_of if moved else decision.confirmed_as_of or before.state_as_of,
            changed_at=now if decision.to_state else before.changed_at,
        )
        if decision.phase is not None:
            self.phases.append(decision.phase)

    def check(self) -> None:
        """What is owed follows from the phases seen, is owed once, and tells the parts' ways."""
        effects = [effect for effect, _ in self.owed]
        for effect in set(effects):
            assert [n for e, n in self.owed if e is effect] == list(range(effects.count(effect)))
        assert [key for key in self.owed if key[0] not in OF_MONEY] == words_of(self.phases)
        of_part: dict[tuple[PartKind, str], list[PartStatus]] = {}
        for part in filter(None, self.owed.values()):
            of_part.setdefault((part.kind, part.name), []).append(part.status)
        for told in of_part.values():
            assert all(one is not other for one, other in pairwise(told)), "one change was told twice"
        for part in self.payment.parts:
            if part.kind is not PartKind.CAPTURE:
                assert of_part[part.kind, part.name][-1] is part.status, "the last word is not true"


LIVES = st.sampled_from([CARD, DEBIT, *LIFECYCLES])


@settings(max_examples=600)
@given(LIVES, st.integers(0, 2**32))
def test_lost_repeated_and_reordered_statements_end_in_the_truth(life, seed):
    """Then one answer: state, sums, phase and parts are the provider's, the effects those of what was seen."""
    provider, shop = Provider(life, seed), Shop(life)
    provider.live()
    if provider.state is None:
        return
    rng = provider.rng
    now = provider.at + timedelta(minutes=1)
    heard = [each for each in provider.pushed if rng.random() < 0.7]
    heard += [rng.choice(provider.pushed) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.7:
        rng.shuffle(heard)
    for said in heard:
        shop.hear(said, now)
        shop.check()
    answer = provider.whole(Source.POLL, now)
    shop.hear(answer, now)
    shop.check()

    payment = shop.payment
    assert payment.state == provider.state
    if shop.phases:
        assert shop.phases[-1] is provider.phase
    if provider.manner != NOT:
        for name in SUM_NAMES:
            truth = getattr(provider.sums(), name)
            assert truth is None or truth == (getattr(payment.sums, name) or 0), f"{name} is not {truth}"
    owed = list(shop.owed)
    shop.hear(answer, now + timedelta(seconds=1))
    assert list(shop.owed) == owed, "the same answer again makes nothing due"


@settings(max_examples=400)
@given(LIVES, st.integers(0, 2**32))
def test_statements_in_order_make_due_exactly_what_happened(life, seed):
    """Nothing is lost or late: the sequence of effects is the truth's, and each change of a part is told."""
    provider, shop = Provider(life, seed), Shop(life)
    provider.live()
    for said in provider.pushed:
        if said.as_of is None:
            return
        shop.hear(said, provider.at + timedelta(minutes=1))
    shop.check()

    if provider.pushed:
        assert [key for key in shop.owed if key[0] not in OF_MONEY] == words_of(provider.phases)
    if provider.manner == AS_PARTS:
        told = [(part.kind, part.name, part.status) for part in shop.owed.values() if part is not None]
        assert [each for each in told if each[0] is not PartKind.CAPTURE] == [
            each for each in provider.changes if each[0] is not PartKind.CAPTURE
        ]
