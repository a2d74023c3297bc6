"""One legal provider history under loss, repetition, reordering, crashes, stalls and clock jumps."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from providers.contract import Answer, Delivery
from providers.errors import ProviderError
from receiver.intake import verified_message
from receiver.returns import About
from statemachine import own_statements
from statemachine.phases import Effect, Review, Source
from storage import inbox, outbox, payments, transitions
from storage.database import Unit
from storage.errors import LeaseLost
from storage.ids import new_id
from storage.tables import InboxMessage, OutboxMessage, Payment
from tests.property.pipeline_voices import Telling, Voice
from tests.support import keeping
from tests.support.builders import our_message
from tests.support.pipeline_world import SINKS, SimulatedCrash, World
from tests.unit.statemachine.oracle import EFFECTS, is_walk, next_of
from worker.payment_session import Session
from worker.process import MessageProcessor

ASKED_MINOR = 450

#: What may happen in the middle of a worker's step, where several processes share a database.
_BESIDE = {"deliver", "redeliver", "deliver_variant", "answer_arrives", "return_hint", "wake", "replay"}

#: What changes nothing here, so that there is nothing to look at.
_UNSEEN = {"move", "slow_question", "jump"}


class History:
    """A provider's payment and everything that is said of it here."""

    def __init__(self, world: World, voice: Voice, seed: int) -> None:
        self.rng = rng = random.Random(f"{voice.name}.{voice.kind}/{seed}")
        self.races = random.Random(seed)  #: who of two goes first; of its own, so that a seed is one history everywhere
        self.world, self.voice = world, voice
        self.walk = self._legal_walk()
        self.account = f"{voice.kind[:8]}-{len(world.members)}"
        self.is_ours = rng.random() < 0.7  #: created here; else by somebody else with the same account
        self.echoes = voice.is_ref_ours or rng.random() < 0.6  #: the provider gives the merchant's reference back
        self.member = world.join(self.account, voice.provider, adopts=rng.random() < 0.6)
        self.member.client.present = self._present
        self.reference = f"order-{seed}-{len(world.members)}"
        self.ref = self.reference if voice.is_ref_ours else f"pi_{new_id()[-12:]}{seed}"
        self.is_doubtful = self.is_ours and self.echoes and rng.random() < 0.12
        self.minor = ASKED_MINOR + (1 if self.is_doubtful else 0)
        self.payment_id = new_id()
        self.step = -1  #: where the provider is on its walk
        self.moved_at = world.clock()
        self.air: list[bytes] = []  #: webhooks under way
        self.sent: list[bytes] = []
        self.held: list[Callable[[], InboxMessage]] = []  #: answers of ours under way
        self.stalled: list[InboxMessage] = []
        self.is_wanted = False
        self.decoy_id = new_id()  #: another order of the account, whose own URL gets what is not about it
        self.decoy_ref = f"{self.reference}-decoy"
        self.has_decoy = rng.random() < 0.5
        self.trail: list[str] = []

    def _legal_walk(self) -> list[str]:
        life, walk = self.voice.lifecycle, []
        state: str | None = None
        while len(walk) < 9:
            targets = life.initial if state is None else life.moves.get(state, ())
            if not targets or (walk and self.rng.random() < 0.15):
                break
            state = self.rng.choice(targets)
            walk.append(state)
        return walk

    # -- the provider -------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return self.walk[self.step]

    def _told(self, serial: str = "", *, says_money: bool = True) -> Telling:
        reference = self.reference if self.echoes else None
        return Telling(self.ref, reference, self.state, self.minor if says_money else None, self.moved_at, serial)

    def _answer(self, ref: str | None) -> Answer:
        return Answer(200, self.voice.answer(self._told()), self.world.clock(), self.voice.kind, ref)

    def _present(self, _kind: str, ref: str) -> Answer:
        if ref == self.decoy_ref:
            return self._decoy_answer(ref)
        if self.step < 0 or self.rng.random() < 0.1:
            raise ProviderError("try later", http_status=503, may_retry=True)
        return self._answer(ref)

    def move(self) -> None:
        """The provider moves on, and sends word of it."""
        if self.step + 1 == len(self.walk):
            return
        self.step, self.moved_at = self.step + 1, self.world.clock()
        says_money = self.rng.random() < 0.7 or self.is_doubtful  # a sum that nobody states is not doubted
        body = self.voice.webhook(self._told(serial=new_id(), says_money=says_money))
        if body is not None and self.voice.is_kind_told and self.voice.provider.delivery_key(Delivery(body, ())):
            self.member.client.logged.append(body)
        if body is not None and self.rng.random() < 0.75:
            self.air.append(body)
        if self.step == 0 and self.is_ours:
            self._hold_create_answer()

    def _hold_create_answer(self) -> None:
        if self.rng.random() < 0.25:
            return  # nobody was left to hear it
        if self.rng.random() < 0.15:
            failed = own_statements.CallFailed("create", "timeout", "no answer", None, is_ambiguous=True)
            self.held.append(lambda: our_message(failed, about=self.payment_id, at=self.now, account=self.account))
        else:
            answer = self._answer(None)
            self.held.append(lambda: self.world.answered(self.account, Source.CREATE, answer, self.payment_id))

    # -- what may happen here -----------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.world.clock()

    def _crash_at(self) -> int | None:
        return self.rng.randint(1, 14) if self.rng.random() < 0.3 else None

    def want(self) -> None:
        """The merchant's wish is recorded, and applied as `create` does; a crash makes the merchant repeat it."""
        wanted = own_statements.CreateWanted(self.voice.kind, self.reference, ASKED_MINOR, self.voice.currency)
        message = our_message(
            wanted, about=self.payment_id, at=self.now, account=self.account, delivery_key=f"create:{self.reference}"
        )
        for _ in range(20):
            with self.world.crashing(self._crash_at()):
                recorded = self.world.record(message)[0]
                self.world.worker().step([recorded.id])
            with self.world.database.read() as unit:
                self.is_wanted = self.payment_id in payments.existing(unit, [self.payment_id])
            if self.is_wanted:
                return
            self.world.clock.advance(61)
        raise AssertionError("the merchant's wish was lost")

    def _want_decoy(self) -> None:
        """Another order, of the same sum, which the provider has named and nobody pays."""
        wanted = own_statements.CreateWanted(self.voice.kind, self.decoy_ref, ASKED_MINOR, self.voice.currency)
        self.world.record(
            our_message(wanted, about=self.decoy_id, at=self.now, account=self.account, delivery_key="create:decoy")
        )
        self.world.worker().step()
        self.world.record(self.world.answered(self.account, Source.CREATE, self._decoy_answer(None), self.decoy_id))
        self.world.worker().step()

    def _decoy_answer(self, ref: str | None) -> Answer:
        initial = self.voice.lifecycle.initial[0]
        told = Telling(self.decoy_ref, self.decoy_ref, initial, ASKED_MINOR, self.now, "")
        return Answer(200, self.voice.answer(told), self.now, self.voice.kind, ref)

    def deliver(self) -> None:
        """A webhook arrives, in any order; a crash before its commit leaves it under way."""
        if not self.air:
            return
        body = self.air[self.rng.randrange(len(self.air))]
        with self.world.crashing(self._crash_at()) as crashed:
            self._receive(body)
        if not crashed:
            self.air.remove(body)
            self.sent.append(body)

    def misdeliver(self) -> None:
        """A webhook arrives at the own URL of another order, which it does not name."""
        if self.has_decoy and self.air:
            self.sent.append(self.air.pop(self.rng.randrange(len(self.air))))
            about = About(self.account, self.voice.kind, self.decoy_id)
            delivery = self.voice.delivery(self.sent[-1], self.now)
            self.world.record(verified_message(self.member.receiving, about, self.voice.kind, delivery, self.now))

    def redeliver(self) -> None:
        if self.sent:
            self._receive(self.rng.choice(self.sent))

    def deliver_variant(self) -> None:
        """The provider sends the same identity with other content."""
        if self.voice.kind == "payment_session" and self.sent:
            self._receive(self.rng.choice(self.sent).replace(b'"live":false', b'"live":false,"again":1'))

    def _receive(self, body: bytes) -> None:
        account, about, kind = self.member.receiving, None, None
        if self.voice.name == "payfield":
            kind = self.voice.kind
            if self.is_wanted and self.rng.random() < 0.5:
                about = About(self.account, kind, self.payment_id)
        message = verified_message(account, about, kind, self.voice.delivery(body, self.now), self.now)
        self.world.record(message)

    def answer_arrives(self) -> None:
        """An answer to a call of ours is recorded, however long ago it was given."""
        if self.held:
            make = self.held.pop(self.rng.randrange(len(self.held)))
            self.world.record(make())

    def slow_question(self) -> None:
        """The provider is asked now, and its answer will be recorded later."""
        if self.step >= 0:
            answer = self._answer(self.ref)
            self.held.append(lambda: self.world.answered(self.account, Source.POLL, answer, None))

    def return_hint(self) -> None:
        if self.is_wanted:
            key = f"return:{self.payment_id}:{int(self.now.timestamp()) // 5}"
            self.world.record(
                inbox.new_message(
                    account=self.account,
                    source="return",
                    delivery_key=key,
                    body=b"",
                    received_at=self.now,
                    about=self.payment_id,
                )
            )

    def work(self) -> None:
        with self.world.crashing(self._crash_at()):
            self.world.work(self.races)

    def stall(self) -> None:
        """A worker claims and then sleeps, longer than its lease."""
        if not self.stalled:
            with self.world.database.write() as unit:
                self.stalled = inbox.claim(unit, self.now, self.world.settings.lease, 3)

    def wake(self) -> None:
        """The worker that slept goes on as if nothing had happened."""
        stalled, self.stalled = self.stalled, []
        try:
            with self.world.crashing(self._crash_at()), self.world.database.write() as unit:
                batch = Session(unit, self.now)
                for message in stalled:
                    MessageProcessor(batch, message, self.world.rules, self.world.settings).run()
                batch.flush()
        except LeaseLost:
            self.trail.append("(lease lost)")

    def read_journal(self) -> None:
        """The provider's own log of events is read on, as far as one page goes."""
        with self.world.crashing(self._crash_at()):
            self.world.run(self.world.journal(self.account).step(self.account))

    def poll(self) -> None:
        with self.world.crashing(self._crash_at()):
            self.world.run(self.world.poller(self.account).step())

    def replay(self) -> None:
        """An operator has a message processed again."""
        with self.world.database.write() as unit:
            found = [m for m in inbox.find(unit, account=self.account) if m.status != "pending"]
            if found:
                keeping.replay(unit, self.rng.choice(found).id, self.now)

    def jump(self) -> None:
        """Time passes, or the clock is set back a little."""
        self.world.clock.advance(self.rng.choice((0.2, 1, 2, 30, 61, 61, 130, 4000, 25_000, -5, -40)))

    # -- the whole ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Everything that may happen does, in some order; then one poll. Raises AssertionError where a rule breaks."""
        if self.has_decoy:
            self._want_decoy()
        if self.is_ours:
            self.want()
        acts = (
            *((self.move,) * 4),
            *((self.deliver,) * 5),
            *((self.work,) * 5),
            *((self.jump,) * 3),
            *((self.answer_arrives,) * 2),
            *(self.redeliver, self.redeliver, self.deliver_variant, self.slow_question, self.return_hint),
            self.misdeliver,
            *(self.stall, self.wake, self.poll, self.replay, self.read_journal, self.read_journal),
        )
        for _ in range(self.rng.randint(4, 28)):
            act = self.rng.choice(acts)
            self.trail.append(act.__name__)
            if act.__name__ in _BESIDE:
                self.world.beside_a_worker(self.races, act)
            else:
                act()
            if act.__name__ not in _UNSEEN:
                self.check()
        self._come_to_rest()

    def run_piled(self) -> None:
        """Everything is said before anybody works: as much as can be is done at once, and about one payment."""
        if self.is_ours:
            self.want()
        for _ in self.walk:
            self.move()
            self.slow_question()
            self.world.clock.advance(1)
        for _ in range(2 * len(self.walk) + 2):
            self.rng.choice((self.deliver, self.deliver, self.answer_arrives, self.redeliver, self.return_hint))()
        self.world.settle(self.races)
        self.check()
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        while self.step + 1 < len(self.walk):
            self.move()
        for arrives in (self.deliver, self.answer_arrives):
            if self.rng.random() < 0.5:
                arrives()
        self.world.clock.advance(600)  # past every lease, the create call's grace, and each step back of the clock
        self.wake()
        self.world.settle(self.races)
        self.world.run(self.world.poller(self.account).step())  # finds creates that were never answered
        self.world.settle(self.races)
        self.check()
        self.world.record(self.world.answered(self.account, Source.POLL, self._answer(self.ref), None))
        self.world.settle(self.races)
        self.check()
        self.check_at_rest()

    # -- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """What holds at every instant."""
        with self.world.database.read() as unit:
            for payment in payments.find(unit, account=self.account):
                if payment.id == self.decoy_id:
                    self._check_decoy(unit, payment)
                    continue
                self._check_chain(unit, payment)
                owed = Counter((o.effect, o.sink, o.occurrence) for o in outbox.of_payment(unit, payment.id))
                assert all(count == 1 for count in owed.values()), f"owed twice: {owed}"
            for message in inbox.find(unit, account=self.account):
                assert message.status in ("pending", "decided", "parked"), f"{message.status}: {message.last_error}"
                assert (message.status == "pending") == (message.decision is None)

    def _check_chain(self, unit: Unit, payment: Payment) -> None:
        state: str | None = None
        life = self.voice.lifecycle
        chain = transitions.of_payment(unit, payment.id)
        assert list(range(1, len(chain) + 1)) == [link.number for link in chain], "numbers have gaps"
        for link in chain:
            is_left = link.to_state != state
            assert not is_left or state is None or next_of(life, state), f"left the terminal state {state}"
            assert state == link.from_state, f"{link.from_state} does not follow {state}"
            is_refund_learnt = link.to_state == state and link.refunded_minor is not None  # how much, after that it was
            is_legal = is_refund_learnt or is_walk(life, state, (*link.via, link.to_state))
            assert is_legal, f"{state} -> {link.via} -> {link.to_state}"
            assert not link.forced
            assert self._has_been(link.to_state), f"{link.to_state} is not what the provider ever said"
            state = link.to_state
        assert (state, len(chain)) == (payment.state, payment.version), "the state is not what the history adds up to"

    def _check_decoy(self, unit: Unit, decoy: Payment) -> None:
        """What came to its own URL and is signed as another's has done nothing to it."""
        assert (decoy.state, decoy.version) in ((None, 0), (self.voice.lifecycle.initial[0], 1)), decoy.state
        assert (decoy.review, outbox.of_payment(unit, decoy.id)) == (None, []), "the decoy was paid"

    def _has_been(self, state: str) -> bool:
        return state in self.walk[: self.step + 1]

    def check_at_rest(self) -> None:
        """What holds after everything was said and the provider was asked once more."""
        with self.world.database.read() as unit:
            kept = [each for each in payments.find(unit, account=self.account) if each.id != self.decoy_id]
            messages = inbox.find(unit, account=self.account)
            named = [payment for payment in kept if payment.provider_ref == self.ref]
            assert len(named) == 1, f"{len(named)} payments are called {self.ref}"
            owed = outbox.of_payment(unit, named[0].id)
        payment = named[0]
        assert self.state == payment.state, f"the provider is at {self.state}, we at {payment.state}"
        for other in kept:
            if other is not payment:
                assert (other.provider_ref, other.state, other.review) == (None, None, Review.CREATE_UNKNOWN)
                assert not self.echoes, "the provider's echo was not heard"
        for message in messages:
            assert message.status == "decided" or message.variant_of is not None, f"{message.status}: {message.reason}"
        self._check_effects(payment, owed)
        if payment.review == Review.AMOUNT_MISMATCH:
            self._release(payment)

    def _release(self, payment: Payment) -> None:
        """A person says that the money is right: what was withheld is owed now, once."""
        resolved = own_statements.Resolution(self.state, "it is right", "ada")
        for _ in range(2):
            self.world.note_resolution(self.account, payment.id, resolved)
            self.world.record(our_message(resolved, about=payment.id, at=self.now, account=self.account))
        self.world.settle(self.races)
        self.check()
        with self.world.database.read() as unit:
            released, owed = payments.get(unit, payment.id), outbox.of_payment(unit, payment.id)
        self.is_doubtful = False
        self._check_effects(released, owed)

    def _check_effects(self, payment: Payment, owed: list[OutboxMessage]) -> None:
        life = self.voice.lifecycle
        is_withheld = self.is_doubtful and payment.id == self.payment_id
        reviews = {Review.AMOUNT_MISMATCH} if is_withheld else {None, Review.CREATE_UNKNOWN}
        assert payment.review in reviews, f"review {payment.review}: {payment.review_note}"
        effects, review = {o.effect for o in owed}, life.effect_name(Effect.REVIEW_REQUIRED)
        closing = life.effect_name(Effect.REVIEW_CLOSED)
        required = {life.effect_name(e) for e in EFFECTS[life.phase(self.state)]}
        allowed = {life.effect_name(e) for state in self.walk for e in EFFECTS[life.phase(state)]}
        if is_withheld:
            goods = {life.effect_name(Effect.PAID), life.effect_name(Effect.SETTLED)}
            required, allowed = required - goods, allowed - goods
            required -= {life.effect_name(Effect.REFUNDED)}  # more was given back than was asked for
        assert required <= effects, f"{required - effects} is not owed"
        assert effects <= allowed | {review, closing}, f"{effects - allowed} is owed without reason"
        for effect in effects - {review, closing}:
            assert sorted(SINKS) == sorted(o.sink for o in owed if o.effect == effect), f"{effect} for whom?"
        told = [o for o in owed if o.effect == review]
        assert len(SINKS) * payment.reviews == len(told), "each review is told once"
        over = {(o.sink, o.occurrence) for o in owed if o.effect == closing}
        stands = {payment.reviews} if payment.review is not None else set()
        ended = {(o.sink, o.occurrence) for o in told if o.occurrence not in stands}
        assert over == ended, "each review that is over is told to be over, and no other"


def run_history(world: World, voice: Voice, seed: int, *, is_piled: bool = False) -> History:
    """One history; an AssertionError names the seed and what had happened."""
    story = History(world, voice, seed)
    try:
        if is_piled:
            story.run_piled()
        else:
            story.run()
    except (AssertionError, Exception, SimulatedCrash) as fault:
        words = f"history {voice.name}.{voice.kind} seed {seed}, walk {story.walk}, ours {story.is_ours}, "
        words += f"echoes {story.echoes}, adopts {world.rules[story.account].adopts_unknown}: {story.trail}"
        raise AssertionError(f"{words}\n{type(fault).__name__}: {fault}") from fault
    return story
