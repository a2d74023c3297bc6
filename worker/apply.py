"""Change payments, each change by one inbox message; no other code does (rule R1)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_alarm
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, cast

import structlog
from msgspec.structs import replace

from statemachine.attempts import (
    Attempt,
    counts_of_parts,
    doubt_second_payment,
    is_nearer,
    nearest,
    stand_aside,
    take_lead,
)
from statemachine.decide import as_refund, decide
from statemachine.effects import DueEffect
from statemachine.lifecycle import NOT_CREATED, Lifecycle
from statemachine.observation import Decision, Observation, PaymentView
from statemachine.own_statements import AccountAlarm
from statemachine.phases import (
    FULFILMENT_PHASES,
    MOVING_PHASES,
    WITHHOLDING,
    Alarm,
    Effect,
    Outcome,
    Phase,
    Review,
    Source,
)
from statemachine.sums import UNSAID
from storage import outbox, transitions
from storage.database import build_record, wrap_columns
from storage.ids import webhook_id
from storage.tables import InboxMessage, Payment
from storage.types import PollPriority
from worker import attempts
from worker.accounts import AccountRules, ApplySettings
from worker.effects import (
    Closed,
    alarm_id,
    alarm_payload,
    closed_by,
    id_of,
    occurrence_of,
    payload,
    with_closing,
)
from worker.finder import gives_goods, namesake_kinds
from worker.payment_session import Session
from worker.sums import keep_sums, parts_of, stated_of, sums_of

#: Effects of a decision that owes none.
_NOTHING: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})

log = structlog.get_logger()

#: The fact that a transfer was announced, with the instant of the announcement.
_TRANSFER: Final = "transfer_seen_at"

_WORDS: Final = {outcome: outcome.value for outcome in Outcome}
_PHASES: Final = {phase: phase.value for phase in Phase}
_SCHEDULE: Final = PollPriority.SCHEDULE.value

_UNPAID: Final = frozenset(phase.value for phase in MOVING_PHASES)
_ENDED_UNPAID: Final = frozenset({Phase.FAILED.value, Phase.CANCELLED.value, Phase.EXPIRED.value})


class PaymentWriter:
    """Writes the changes of one message to its payments, in one unit of work (R3)."""

    def __init__(
        self, session: Session, message: InboxMessage, settings: ApplySettings, *, is_hint: bool = False
    ) -> None:
        """Take `is_hint`, whether what the message says is only a reason to ask."""
        self._session = session
        self._message = message
        self._marks: dict[str, Any] = {"hint": True} if is_hint else {}  #: of every outcome
        self._sinks, self._takes = settings.sinks, settings.takes
        self._now = session.now
        self.outcomes: list[dict[str, Any]] = []  #: one for each observation, for the timeline
        self.payment_ids: dict[str, None] = {}  #: every payment that the message was about, in order

    def decide(
        self,
        rules: AccountRules,
        payment: Payment,
        observation: Observation,
        *,
        ask: bool = False,
        answers: str | None = None,
    ) -> None:
        """Apply one observation to the payment by its lifecycle and the account's rules.

        Adds the transition, effects, review and time of the next question; `ask` sets that to now. `answers` is the
        point of a call that is answered by it: a review of that is closed.
        """
        lifecycle = rules.provider.lifecycles[payment.kind]
        is_unnamed = payment.provider_ref is None
        if not self._bind(rules, payment, observation):
            return
        speaker = payment
        if lifecycle.has_names or lifecycle.has_attempts:
            speaker, observation = self._speaker(rules, payment, observation)
            if observation.kind is not None and observation.kind != payment.kind and not observation.is_kind_guessed:
                self._hear_of_further_name(rules, payment, observation)
                return
        observation = as_refund(lifecycle, observation)
        view = self._view(rules, lifecycle, payment, speaker, observation)
        decision = decide(lifecycle, view, observation, self._now)
        if ask:
            decision = replace(decision, ask=True)
        leader = payment.provider_ref
        decision, is_passed = self._keep_attempts(lifecycle, payment, speaker, view, decision, observation)
        if is_unnamed and payment.review == Review.CREATE_UNKNOWN and decision.review is None and leader is not None:
            decision = replace(decision, closes_review=True)  # what became of the create call is known now
        is_answered = payment.review == Review.OUTCOME_UNKNOWN and answers in (payment.disputed or ())
        if is_answered and decision.review is None:
            decision = replace(decision, closes_review=True)
        attempt = None if speaker is payment else observation.provider_ref
        is_led_anew = leader != payment.provider_ref
        self._apply(rules, payment, decision, observation, attempt, is_passed=is_passed, is_led_anew=is_led_anew)

    def _apply(
        self,
        rules: AccountRules,
        payment: Payment,
        decision: Decision,
        observation: Observation,
        attempt: str | None,
        *,
        is_passed: bool,
        is_led_anew: bool,
    ) -> None:
        """Write what was decided; `is_led_anew`: another attempt leads now.

        `is_passed`: the facts of the statement are not the payment's.
        """
        lifecycle = rules.provider.lifecycles[payment.kind]
        before, state_as_of = payment.state, payment.state_as_of
        if decision.to_state is not None:
            phase = decision.phase or lifecycle.phase(decision.to_state)
            self._move(payment, decision, observation, decision.to_state, phase)
            if is_led_anew:
                payment.state_as_of = state_as_of
            if _TRANSFER in payment.facts and payment.phase in _ENDED_UNPAID and payment.review is None:
                decision = self._doubting(decision, f"{decision.reason}; yet a transfer was seen")
        if decision.confirmed_as_of is not None:
            payment.state_as_of = decision.confirmed_as_of
        if before == decision.to_state and not decision.state_confirmed and observation.status is not None:
            is_passed = True
        self._learn(payment, decision, observation, is_passed=is_passed)
        self._session.poll_of(payment).next_poll_at = self._next_poll(rules, payment, decision)
        if payment.names is not None and self._message.source == Source.POLL and attempt is None:
            self._ask_about_attempts(rules, payment)
        self._keep(lifecycle, payment, decision, attempt=attempt)

    def _view(
        self, rules: AccountRules, lifecycle: Lifecycle, payment: Payment, speaker: Payment, observation: Observation
    ) -> PaymentView:
        """Return the wish, and the state and sums of the attempt that speaks."""
        counts = payment.counts or {}
        return PaymentView(
            state=speaker.state,
            phase=None if speaker.state is None else Phase(speaker.phase),
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            sums=(sums := sums_of(speaker)),
            stated={} if sums is UNSAID else stated_of(speaker),
            parts=() if speaker.parts is None else parts_of(speaker),
            counts=counts if speaker is payment else counts_of_parts(counts),
            state_as_of=speaker.state_as_of,
            changed_at=speaker.changed_at,
            review=Review(payment.review) if payment.review else None,
            disputed=tuple(payment.disputed or ()),
            accepted=tuple(payment.accepted or ()),
            namesake=self._namesake(rules, lifecycle, payment, observation),
            is_live=rules.is_live,
            policy=rules.policy,
            partial_capture=rules.partial_capture,
            tolerance_minor=rules.tolerance_minor,
            can_ask=rules.can_ask(payment.kind),
        )

    def unite(self, rules: AccountRules, payment: Payment, wish: Payment, observation: Observation) -> None:
        """End an adopted payment that is a wish of ours; its id is free for that one."""
        words = f"it is payment {wish.id}, whose create call was not answered: the provider tells the reference now"
        decision = Decision(
            Outcome.ADVANCED,
            words,
            to_state=NOT_CREATED,
            forced=True,
            phase=Phase.FAILED,
            closes_review=payment.review is not None,
        )
        self._move(payment, decision, observation, NOT_CREATED, Phase.FAILED)
        ref, payment.provider_ref = payment.provider_ref, None
        self._session.poll_of(payment).next_poll_at = None
        self._keep(rules.provider.lifecycles[payment.kind], payment, decision)
        self._session.release(payment, str(ref))

    # -- further names and attempts

    def _speaker(self, rules: AccountRules, payment: Payment, observation: Observation) -> tuple[Payment, Observation]:
        """Return whose state is told: the payment's, or another attempt's as a record.

        Takes over the further names. An id that a page gives as a further name is the payment's own.
        """
        lifecycle, ref = rules.provider.lifecycles[payment.kind], observation.provider_ref
        is_of_kind = observation.is_kind_guessed or observation.kind in (None, payment.kind)
        speaker = payment
        if ref is not None and ref != payment.provider_ref:
            known = attempts.entry_of(payment, ref)
            is_attempt = lifecycle.has_attempts and is_of_kind and (known is None or "state" in known)
            if is_attempt or not is_of_kind:
                self._add_name(rules, payment, ref)
            if is_attempt:
                speaker = attempts.as_payment(payment, ref)
            elif is_of_kind:
                observation = replace(observation, provider_ref=payment.provider_ref)
        for name in observation.names:
            self._add_name(rules, payment, name)
        return speaker, observation

    def _add_name(self, rules: AccountRules, payment: Payment, name: str) -> None:
        """Index a further name, unless it is this payment's or another's already."""
        if attempts.has_name(payment, name):
            return
        if self._session.find_by_name(payment.account, [payment.kind], name) is not None:
            return
        attempts.add_name(payment, name)
        self._session.add_name(payment, name)
        self.reopen(rules, name)

    def _hear_of_further_name(self, rules: AccountRules, payment: Payment, observation: Observation) -> None:
        """Ask about the payment of a thing of another kind, whose state is its own."""
        words = f"{observation.kind} {observation.provider_ref} belongs to it; the provider {rules.asking(payment)}"
        self.note(payment, Outcome.NOTED, words)
        if rules.can_ask(payment.kind):
            self._session.ask_at(payment, self._now, PollPriority.DOUBT)

    def _keep_attempts(
        self,
        lifecycle: Lifecycle,
        payment: Payment,
        speaker: Payment,
        view: PaymentView,
        decision: Decision,
        observation: Observation,
    ) -> tuple[Decision, bool]:
        """Keep sums and attempts; return what the wish is decided to do.

        The second is whether the facts of the statement are another attempt's than the one that leads.
        """
        leader = payment.provider_ref
        if speaker is not payment:
            decision = self._decide_attempt(lifecycle, payment, speaker, decision, observation)
            is_passed = leader == payment.provider_ref
        elif payment.names is None:
            keep_sums(payment, decision)
            return decision, False
        else:
            decision = self._follow(lifecycle, payment, decision, observation)
            is_passed = leader != payment.provider_ref
        phase = decision.phase or Phase(payment.phase)
        return doubt_second_payment(view, phase, decision, attempts.attempts_of(payment)), is_passed

    def _decide_attempt(
        self, lifecycle: Lifecycle, payment: Payment, speaker: Payment, decision: Decision, observation: Observation
    ) -> Decision:
        """Keep what another attempt says; it leads where it is nearer to money."""
        keep_sums(speaker, decision)
        self._advance_attempt(lifecycle, speaker, decision, observation)
        attempt = Attempt(str(speaker.provider_ref), speaker.state, Phase(speaker.phase))
        before = Phase(payment.phase)
        if decision.outcome is Outcome.ADVANCED and is_nearer(attempt.phase, before):
            self._lead_with(payment, payment, speaker)
            passed = tuple(lifecycle.phase(state) for state in decision.via)
            decision = take_lead(before, payment.counts or {}, decision, attempt, passed)
            if decision.counts is not None:
                payment.counts = dict(decision.counts) or None
            return decision
        attempts.put(payment, speaker)
        aside = stand_aside(decision, attempt)
        if aside.ask:
            self._session.ask_about_id(payment.account, payment.kind, attempt.name)
        return replace(aside, ask=False)

    def _follow(self, lifecycle: Lifecycle, payment: Payment, decision: Decision, observation: Observation) -> Decision:
        """Keep what the leading attempt says; another may be nearer to money now."""
        counts = payment.counts
        keep_sums(payment, decision)
        if decision.to_state is None or observation.source is Source.OPERATOR:
            return decision
        best = nearest(attempts.attempts_of(payment), decision.phase or lifecycle.phase(decision.to_state))
        if best is None:
            return decision
        before = Phase(payment.phase)
        led = wrap_columns(Payment, dict(payment.__dict__))
        self._advance_attempt(lifecycle, led, decision, observation)
        self._lead_with(payment, led, attempts.as_payment(payment, best.name))
        if payment.review in WITHHOLDING and not decision.closes_review and decision.withheld_reason is None:
            decision = replace(decision, withheld_reason=f"the review of {payment.review} is open")
        decision = take_lead(before, counts or {}, decision, best)
        payment.counts = counts if decision.counts is None else dict(decision.counts) or None
        return decision

    def _lead_with(self, payment: Payment, led: Payment, attempt: Payment) -> None:
        """Let another attempt lead; `led` is found by its name still."""
        leader = payment.provider_ref
        if leader is not None and attempts.entry_of(payment, leader) is None:
            self._session.add_name(payment, leader)
        attempts.lead_with(payment, led, attempt)

    def _advance_attempt(
        self, lifecycle: Lifecycle, attempt: Payment, decision: Decision, observation: Observation
    ) -> None:
        """Move an attempt on its own record, without a transition of the wish."""
        if decision.confirmed_as_of is not None:
            attempt.state_as_of = decision.confirmed_as_of
        if decision.to_state is None:
            return
        if attempt.state != decision.to_state:
            attempt.state_as_of = observation.as_of
        attempt.state, attempt.changed_at = decision.to_state, self._now
        attempt.phase = _PHASES[decision.phase or lifecycle.phase(decision.to_state)]
        attempt.failure_reason = observation.failure_reason

    def _ask_about_attempts(self, rules: AccountRules, payment: Payment) -> None:
        """Have the provider asked about the attempts that do not lead."""
        if rules.can_ask(payment.kind):
            for attempt in attempts.attempts_of(payment):
                if attempt.phase in MOVING_PHASES:
                    self._session.ask_about_id(payment.account, payment.kind, attempt.name)

    def review(
        self,
        rules: AccountRules,
        payment: Payment,
        review: Review,
        reason: str,
        *,
        point: str | None = None,
        outcome: Outcome = Outcome.NOTED,
        is_unreadable: bool = False,
    ) -> None:
        """Open a review without an observation; keep one that is open already.

        Opens none for a point that a person has accepted. The default point is this message.
        """
        point = point or self._point
        decision = Decision(outcome, reason)
        if point in (payment.accepted or ()):
            decision = replace(decision, reason=f"{reason}; accepted by a person before")
        elif payment.review is None:
            effects = (DueEffect(Effect.REVIEW_REQUIRED),)
            decision = replace(decision, effects=effects, review=review, disputed=(point,))
        lifecycle = rules.provider.lifecycles[payment.kind]
        self._keep(lifecycle, payment, decision, is_unreadable=is_unreadable)

    def see_transfer(self, rules: AccountRules, payment: Payment) -> None:
        """Record a transfer to the payment's address; review a payment that ended unpaid."""
        payment.facts = {**payment.facts, _TRANSFER: self._now.isoformat()}
        words = f"a transfer has reached the payment's address; the provider {rules.asking(payment)}"
        decision = Decision(Outcome.NOTED, words)
        is_accepted = self._point in (payment.accepted or ())
        if payment.phase in _ENDED_UNPAID and payment.review is None and not is_accepted:
            decision = self._doubting(decision, f"a transfer has come after the payment was {payment.state}")
        lifecycle = rules.provider.lifecycles[payment.kind]
        self._keep(lifecycle, payment, decision)

    def alarm(self, alarm: AccountAlarm) -> None:
        """Owe the account's alarm to each sink that takes it; a replay owes nothing more.

        An alarm about dead effects goes to the sinks that still take effects: a dead sink cannot report itself.
        """
        name = Alarm(alarm.alarm).effect
        account = self._message.account
        text = alarm_payload(account, alarm, self._now)
        effect = alarm_id(account, alarm)
        sinks = self._told_of(alarm, [sink for sink in self._sinks if self._takes(sink, name)])
        ids = [
            self._session.owe_of_account(account, name, sink, self._message.id, text, webhook_id(effect, sink))
            for sink in sinks
        ]
        owed = [owed_id for owed_id in ids if owed_id is not None]
        word = "is over" if alarm.is_over else "begins"
        self.note(None, Outcome.NOTED, f"{name} {word}: {alarm.reason}", owed={name: owed} if owed else {})

    def _told_of(self, alarm: AccountAlarm, takers: list[str]) -> list[str]:
        """Return the sinks to notify: of an alarm's end those that got its beginning."""
        if alarm.alarm != Alarm.DEAD_LETTERS:
            return takers
        if alarm.is_over:
            began = alarm_id(self._message.account, replace_alarm(alarm, is_over=False))
            told = self._session.owed_under([webhook_id(began, sink) for sink in takers])
            return [sink for sink in takers if webhook_id(began, sink) in told] or takers
        dead = str(alarm.details.get("sinks") or "").split(", ")
        others = [sink for sink in takers if sink not in dead]
        if takers and not others:
            log.error("alarm.unheard", account=self._message.account, alarm=alarm.alarm, sinks=", ".join(takers))
        return others or takers

    def begin(self, payment_id: str, kind: str, reference: str | None) -> Payment:
        """Build a payment without a state; the caller adds it to the session."""
        return build_record(
            Payment,
            {
                "id": payment_id,
                "account": self._message.account,
                "kind": kind,
                "reference": reference,
                "phase": Phase.OPEN.value,
                "version": 0,
                "head_hash": "",
                "reviews": 0,
                "facts": {},
                "created_at": self._now,
                "changed_at": self._now,
            },
        )

    def note(
        self,
        payment: Payment | None,
        outcome: Outcome,
        reason: str,
        *,
        decision: Decision | None = None,
        owed: Mapping[str, Sequence[str]] = _NOTHING,
        is_unreadable: bool = False,
        untaken: Sequence[str] = (),
        awaits: str | None = None,
        attempt: str | None = None,
    ) -> None:
        """Record the message's outcome for the timeline, and save the payment.

        `owed` are ids of outbox messages by effect; `untaken` are the effects that no sink takes; `is_unreadable` says
        that the body could not be parsed; `awaits` names the payment that the message waits for; `attempt` is the id
        of the attempt that it is about, where that did not lead.
        """
        entry: dict[str, Any] = {**self._marks, "outcome": _WORDS[outcome], "reason": reason}
        entry["at"] = self._session.moment
        if payment is not None:
            entry["payment"] = payment.id
            self.payment_ids[payment.id] = None
        if decision is not None:
            if decision.to_state is not None and payment is not None:
                entry["state"], entry["transition"] = decision.to_state, payment.version
            if decision.state_confirmed:
                entry["state_confirmed"] = True
            if decision.withheld_reason is not None:
                entry["withheld_reason"] = decision.withheld_reason
            if decision.review is not None:
                entry["review"], entry["disputed"] = decision.review.value, list(decision.disputed)
            if decision.accepted is not None:
                entry["accepted"] = list(decision.accepted)
        if is_unreadable:
            entry["unreadable"] = True
        if owed:
            entry["effects"] = list(owed)
            entry["outbox"] = [owed_id for ids in owed.values() for owed_id in ids]
        more = (("untaken", list(untaken)), ("awaits", awaits), ("attempt", attempt))
        entry |= {name: value for name, value in more if value}
        self.outcomes.append(entry)
        if payment is not None:
            poll = self._session.poll_of(payment)
            poll.statements += 1
            entry["number"] = poll.statements
            self._session.save(payment)

    def _bind(self, rules: AccountRules, payment: Payment, observation: Observation) -> bool:
        """Take over the provider's id; return False where it is another payment's."""
        ref = observation.provider_ref
        if payment.provider_ref is not None or ref is None:
            return True
        other = self._session.find_by_ref(payment.account, [payment.kind], ref)
        if other is not None and other.id != payment.id:
            words = f"the provider's id is that of payment {other.id}"
            self.review(rules, payment, Review.CREATE_UNKNOWN, words, point=f"id:{ref}")
            return False
        payment.provider_ref = ref
        self.reopen(rules, ref)
        return True

    def reopen(self, rules: AccountRules, ref: str) -> None:
        """Reopen messages that wait for this id, of any kind: a message may not know it."""
        awaited = [f"{kind}:{ref}" for kind in rules.provider.lifecycles]
        self._session.reopen_awaiting(self._message.account, awaited)

    def _move(
        self, payment: Payment, decision: Decision, observation: Observation, to_state: str, phase: Phase
    ) -> None:
        transition = transitions.link(
            None if self._session.is_rerun else self._session.sealer,
            payment,
            self._message,
            to_state,
            _PHASES[phase],
            decision.via,
            decision.forced,
            observation.actor,
            decision.reason,
            observation.as_of,
            self._now,
        )
        self._session.append(transition)
        if transition.from_state != to_state:
            payment.state_as_of = observation.as_of
        self._session.poll_of(payment).polls = 0

    def _learn(self, payment: Payment, decision: Decision, observation: Observation, *, is_passed: bool) -> None:
        """Take over the other facts of a statement, unless the payment has passed it."""
        if payment.amount_minor is None and (observation.amount_minor or 0) > 0:  # nobody pays zero or less
            payment.amount_minor = observation.amount_minor
        if payment.currency is None:
            payment.currency = observation.currency
        if payment.reference is None:
            payment.reference = observation.reference
        payment.alias = payment.alias or observation.alias
        if is_passed or decision.outcome not in (Outcome.ADVANCED, Outcome.UNCHANGED):
            return
        facts = {**payment.facts, **observation.facts}
        if None in facts.values():
            facts = {name: value for name, value in facts.items() if value is not None}
        payment.facts = cast("dict[str, str]", facts)
        known = payment.failure_reason if payment.phase in _ENDED_UNPAID else None
        payment.failure_reason = observation.failure_reason or known
        payment.expires_at = observation.expires_at or payment.expires_at
        payment.capture_by = observation.capture_by or payment.capture_by

    def _next_poll(self, rules: AccountRules, payment: Payment, decision: Decision) -> datetime | None:
        """Return now if the decision asks, a new time after a move, else the kept time."""
        if payment.provider_ref is None:
            return None
        poll = self._session.poll_of(payment)
        if decision.ask and rules.can_ask(payment.kind):
            poll.poll_priority = min(poll.poll_priority, PollPriority.DOUBT.value)
            return self._now
        is_terminal = rules.provider.lifecycles[payment.kind].is_terminal(payment.state)
        if decision.outcome is not Outcome.ADVANCED and (poll.next_poll_at is not None or is_terminal):
            return poll.next_poll_at
        poll.poll_priority = _SCHEDULE
        at = rules.next_poll(payment, poll, self._now)
        is_seen = decision.review is not None or (payment.review is not None and not decision.closes_review)
        if at is None and not is_terminal and payment.phase in _UNPAID and not is_seen:
            return self._now  # the poller gives up visibly; an open payment is asked about, or a person looks
        return at

    def _keep(
        self,
        lifecycle: Lifecycle,
        payment: Payment,
        decision: Decision,
        *,
        is_unreadable: bool = False,
        attempt: str | None = None,
    ) -> None:
        closed = closed_by(decision, payment)
        if decision.review is not None:
            is_withheld = decision.review in WITHHOLDING and decision.withheld_reason is not None
            payment.review = decision.review.value
            payment.review_note = decision.withheld_reason if is_withheld else decision.reason
            payment.review_opened_at, payment.reviews = self._now, payment.reviews + 1
            payment.disputed = list(decision.disputed) or None
            if not self._session.is_rerun:
                log.warning(
                    "payment.review_opened",
                    payment_id=payment.id,
                    account=payment.account,
                    message_id=self._message.id,
                    review=decision.review.value,
                )
        elif decision.closes_review:
            payment.review = payment.review_note = payment.review_opened_at = payment.disputed = None
        if decision.accepted is not None:
            payment.accepted = list(decision.accepted) or None
        self._session.poll_of(payment).heard_at = self._now
        owed: dict[str, list[str]] = {}
        untaken: list[str] = []
        effects = decision.effects
        if closed is not None:
            effects = with_closing(effects)
            if not self._session.is_rerun:
                log.info("payment.review_closed", payment_id=payment.id, account=payment.account, review=closed.review)
        if effects:
            owed = {}
            for due in effects:
                name = lifecycle.effect_name(due.effect)
                if ids := self._owe(payment, due, name, decision.reason, closed):
                    owed[name] = [*owed.get(name, ()), *ids]
            names = [lifecycle.effect_name(due.effect) for due in effects]
            untaken = [name for name in names if name not in owed and not self._takers(name)]
        self.note(
            payment,
            decision.outcome,
            decision.reason,
            decision=decision,
            owed=owed,
            is_unreadable=is_unreadable,
            untaken=untaken,
            attempt=attempt,
        )

    def _owe(self, payment: Payment, due: DueEffect, name: str, reason: str, closed: Closed | None) -> list[str]:
        """Owe the effect to each sink that takes it, once; return the new outbox ids."""
        about = closed if due.effect is Effect.REVIEW_CLOSED else None
        due = due._replace(occurrence=occurrence_of(due, payment, about))
        occurrence = due.occurrence
        sinks = [sink for sink in self._takers(name) if not self._session.is_owed(payment.id, name, sink, occurrence)]
        effect_id = id_of(name, payment, occurrence, about)
        text = payload(name, payment, due, reason, self._now, about, effect_id=effect_id) if sinks else ""
        owed: list[str] = []
        for sink in sinks:
            message = outbox.new_message(
                payment_id=payment.id,
                account=payment.account,
                effect=name,
                sink=sink,
                occurrence=occurrence,
                cause=self._message.id,
                payload=text,
                now=self._now,
                webhook_id=webhook_id(effect_id, sink),
                number=self._session.next_owed(payment.id),
            )
            self._session.owe(message)
            owed.append(message.id)
        return owed

    def _takers(self, name: str) -> list[str]:
        """Return the sinks that take the effect."""
        return [sink for sink in self._sinks if self._takes(sink, name)]

    @property
    def _point(self) -> str:
        """Point of a review that is about this message; a replay has the same point."""
        return f"message:{self._message.id}"

    def _doubting(self, decision: Decision, reason: str) -> Decision:
        """Return the decision with a review of money that has no legal place."""
        effects = (*decision.effects, DueEffect(Effect.REVIEW_REQUIRED))
        return replace(decision, reason=reason, review=Review.CONFLICT, disputed=(self._point,), effects=effects)

    def _namesake(
        self, rules: AccountRules, lifecycle: Lifecycle, payment: Payment, observation: Observation
    ) -> str | None:
        """Return the id of an earlier payment with this reference, if goods may be owed.

        Another attempt at the same order does not count: the one before ended unpaid, and asked for as much.
        """
        reference = payment.reference or observation.reference
        if reference is None or not gives_goods(lifecycle, observation):
            return None
        if payment.phase in FULFILMENT_PHASES and payment.review is None:
            return None  # owed already
        amount = observation.amount_minor if payment.amount_minor is None else payment.amount_minor
        money = (amount, payment.currency or observation.currency)
        for other in self._session.namesakes(payment, namesake_kinds(rules, payment.kind), reference):
            is_attempt = other.phase in _ENDED_UNPAID and (other.amount_minor, other.currency) == money
            if not is_attempt and not _is_of_other_environment(other):
                return other.id
        return None


def _is_of_other_environment(payment: Payment) -> bool:
    return payment.review == Review.WRONG_ENVIRONMENT or any(
        point.startswith("environment:") for point in payment.accepted or ()
    )
