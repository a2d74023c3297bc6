"""decide() over arbitrary payments and statements: total, pure, and never freer than the lifecycle."""

import copy
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine.decide import decide
from statemachine.lifecycle import NOT_CREATED
from statemachine.observation import Observation
from statemachine.observation import Payment as View
from statemachine.phases import FULFILMENT_EFFECTS, WITHHOLDING, ConflictPolicy, Effect, Outcome, Review, Source
from tests.builders import LIFECYCLES
from tests.unit.statemachine.oracle import is_walk

TIMES = st.datetimes(datetime(1, 1, 2), datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
AMOUNTS = st.none() | st.sampled_from([0, 1, 450]) | st.integers()
CURRENCIES = st.none() | st.sampled_from(["USD", "EUR"]) | st.text(max_size=4)


@st.composite
def questions(draw):
    """A lifecycle, a payment that it permits, and anything at all that may be said about it."""
    life = draw(st.sampled_from(LIFECYCLES))
    known = st.sampled_from([NOT_CREATED, *(state.name for state in life.states)])
    payment = View(
        state=draw(st.none() | known),
        amount_minor=draw(AMOUNTS),
        currency=draw(CURRENCIES),
        state_as_of=draw(st.none() | TIMES),
        review=draw(st.none() | st.sampled_from(list(Review))),
        policy=draw(st.sampled_from(list(ConflictPolicy))),
    )
    said = Observation(
        source=draw(st.sampled_from(list(Source))),
        kind=draw(st.none() | st.text(max_size=8)),
        provider_ref=draw(st.none() | st.text(max_size=8)),
        status=draw(st.none() | known | st.text(max_size=12)),
        amount_minor=draw(AMOUNTS),
        currency=draw(CURRENCIES),
        captured_minor=draw(AMOUNTS),
        refunded_minor=draw(AMOUNTS),
        as_of=draw(st.none() | TIMES),
        facts=draw(st.dictionaries(st.text(max_size=3), st.none() | st.text(max_size=3), max_size=2)),
        actor=draw(st.none() | st.text(max_size=5)),
        note=draw(st.none() | st.text(max_size=5)),
    )
    return life, payment, said, draw(TIMES)


@settings(max_examples=400)
@given(questions())
def test_total_pure_and_bounded(question):
    """One decision for anything said; the same again; arguments untouched; no move that is neither legal nor forced."""
    life, payment, said, now = question
    before = copy.deepcopy((payment, said))

    decision = decide(life, payment, said, now)

    assert decision == decide(life, payment, said, now)
    assert before == (payment, said)
    assert (decision.outcome is Outcome.ADVANCED) == (decision.to_state is not None)
    assert decision.reason
    assert len(set(decision.effects)) == len(decision.effects)
    assert (decision.review is not None) == (Effect.REVIEW_REQUIRED in decision.effects)
    if decision.to_state is not None and not decision.forced:
        assert is_walk(life, payment.state, (*decision.via, decision.to_state))
    if decision.forced:
        is_trusted = said.source in (Source.POLL, Source.CREATE, Source.CANCEL, Source.LIST)
        assert said.source is Source.OPERATOR or (is_trusted and payment.policy is ConflictPolicy.TRUST_PROVIDER)
    if decision.outcome not in (Outcome.ADVANCED, Outcome.UNCHANGED):
        assert set(decision.effects) <= {Effect.REVIEW_REQUIRED}
    if payment.review in WITHHOLDING and said.source is not Source.OPERATOR:
        assert FULFILMENT_EFFECTS.isdisjoint(decision.effects)
        assert decision.review is None or decision.review in WITHHOLDING
        assert not decision.closes_review


@settings(max_examples=150)
@given(questions(), st.lists(st.integers(0, 50), max_size=12))
def test_any_order_of_a_legal_history_ends_where_the_history_ends(question, picks):
    """Statements of a legal walk in any order, with losses and repeats, then the last one asked for: no conflict."""
    life, _, _, now = question
    walk: list[str] = []
    state: str | None = None
    for pick in picks:
        targets = life.initial if state is None else life.moves.get(state, ())
        if not targets:
            break
        state = targets[pick % len(targets)]
        walk.append(state)
    if not walk:
        return
    payment = View()
    told: list[Effect] = []
    statements = [Observation(Source.WEBHOOK, status=walk[pick % len(walk)]) for pick in picks]
    answer = Observation(Source.POLL, status=walk[-1], as_of=now)
    for said in (*statements, answer):
        decision = decide(life, payment, said, now + timedelta(seconds=1))
        assert decision.outcome in (Outcome.ADVANCED, Outcome.UNCHANGED, Outcome.STALE)
        assert decision.review is None
        told += decision.effects
        if decision.to_state is not None:
            payment = View(state=decision.to_state, state_as_of=said.as_of)

    assert walk[-1] == payment.state
    assert len(set(told)) == len([effect for effect in told if effect is not Effect.PAID]) + (Effect.PAID in told)
