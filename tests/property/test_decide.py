"""decide() over arbitrary payments and statements: total, pure, and never freer than the lifecycle."""

import copy
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from statemachine.decide import as_refund, decide
from statemachine.lifecycle import NOT_CREATED
from statemachine.observation import Observation, PaymentView
from statemachine.phases import (
    ANSWERS,
    FULFILMENT_EFFECTS,
    FULFILMENT_PHASES,
    WITHHOLDING,
    ConflictPolicy,
    Effect,
    Outcome,
    Review,
    Source,
)
from statemachine.sums import SUM_NAMES, UNSAID, Part, PartKind, PartStatus, Sums
from tests.support.builders import LIFECYCLES
from tests.unit.statemachine.oracle import EFFECTS, OF_MONEY, is_walk, told

TIMES = st.datetimes(datetime(1, 1, 2), datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
AMOUNTS = st.none() | st.sampled_from([0, 1, 450]) | st.integers()
CURRENCIES = st.none() | st.sampled_from(["USD", "EUR"]) | st.text(max_size=4)
SUMS = st.just(UNSAID) | st.builds(Sums, *[AMOUNTS] * len(SUM_NAMES))
PARTS = st.lists(
    st.builds(
        Part,
        st.sampled_from(PartKind),
        st.sampled_from(["a", "b"]),
        st.sampled_from(PartStatus),
        st.none() | st.integers(0, 500),
        st.none() | TIMES,
    ),
    max_size=3,
    unique_by=lambda part: (part.kind, part.name),
).map(tuple)
COUNTS = st.dictionaries(st.sampled_from([effect.value for effect in Effect]), st.integers(1, 3), max_size=4)
POINTS = st.lists(
    st.sampled_from(
        [
            *("amount:unsaid", "amount:0", "amount:450", "currency:unsaid", "currency:EUR", "reference:other"),
            *("environment:test", "environment:live", "refunded:0", "conflict:confirmed", "status:x", "captured:1"),
        ]
    ),
    max_size=4,
).map(tuple)


@st.composite
def questions(draw):
    """A lifecycle, a payment that it permits, and anything at all that may be said about it."""
    life = draw(st.sampled_from(LIFECYCLES))
    known = st.sampled_from([NOT_CREATED, *(state.name for state in life.states)])
    payment = PaymentView(
        state=draw(st.none() | known),
        amount_minor=draw(AMOUNTS),
        currency=draw(CURRENCIES),
        sums=draw(SUMS),
        stated=draw(st.dictionaries(st.sampled_from(SUM_NAMES), st.none() | TIMES, max_size=3)),
        parts=draw(PARTS),
        counts=draw(
            st.dictionaries(st.sampled_from([effect.value for effect in Effect]), st.integers(1, 3), max_size=4)
        ),
        state_as_of=draw(st.none() | TIMES),
        review=draw(st.none() | st.sampled_from(list(Review))),
        disputed=draw(POINTS),
        accepted=draw(POINTS),
        namesake=draw(st.none() | st.just("other")),
        is_live=draw(st.none() | st.booleans()),
        policy=draw(st.sampled_from(list(ConflictPolicy))),
    )
    said = Observation(
        source=draw(st.sampled_from(list(Source))),
        kind=draw(st.none() | st.text(max_size=8)),
        provider_ref=draw(st.none() | st.text(max_size=8)),
        status=draw(st.none() | known | st.text(max_size=12)),
        amount_minor=draw(AMOUNTS),
        currency=draw(CURRENCIES),
        sums=draw(SUMS),
        parts=draw(PARTS),
        is_live=draw(st.none() | st.booleans()),
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
    effects = set(told(decision))
    assert len({(due.effect, due.occurrence) for due in decision.effects}) == len(decision.effects)
    assert (decision.review is not None) == (Effect.REVIEW_REQUIRED in effects)
    if decision.to_state not in (None, payment.state) and not decision.forced:
        assert is_walk(life, payment.state, (*decision.via, decision.to_state))
    if decision.forced:
        is_trusted = said.source in ANSWERS
        assert said.source is Source.OPERATOR or (is_trusted and payment.policy is ConflictPolicy.TRUST_PROVIDER)
    if decision.outcome not in (Outcome.ADVANCED, Outcome.UNCHANGED):
        assert effects <= {Effect.REVIEW_REQUIRED, *OF_MONEY}
        assert decision.sums is None or decision.outcome is Outcome.STALE
    if said.source is Source.OPERATOR:
        return
    if payment.review in WITHHOLDING:
        assert decision.review is None or decision.review in WITHHOLDING
        if payment.review is not Review.AMOUNT_UNKNOWN:
            assert FULFILMENT_EFFECTS.isdisjoint(effects)
            assert not decision.closes_review
    if not FULFILMENT_EFFECTS.isdisjoint(effects):
        assert not doubted(payment, said, decision.sums or payment.sums), (
            "goods for what nobody has asked for, said or accepted"
        )
    if decision.review is not None:
        assert not set(decision.disputed) <= set(payment.accepted), "opened again for what a person has accepted"


def doubted(payment, said, sums):
    """What is not known or not as asked for, and was not accepted; worked out apart from decide()."""
    asked, captured = payment.amount_minor, sums.captured_minor
    amount = next((each for each in (asked, said.amount_minor, captured) if each is not None), None)
    found = {
        "amount:unsaid": amount is None,
        f"amount:{amount}": amount is not None and amount <= 0,
        f"amount:{said.amount_minor}": None not in (asked, said.amount_minor) and asked != said.amount_minor,
        f"captured:{captured}": None not in (asked, captured) and captured > asked,
        "currency:unsaid": not (payment.currency or said.currency),
        f"currency:{said.currency}": None not in (payment.currency, said.currency)
        and payment.currency != said.currency,
        f"reference:{payment.namesake}": payment.namesake is not None,
        f"environment:{'live' if said.is_live else 'test'}": None not in (payment.is_live, said.is_live)
        and payment.is_live != said.is_live,
    }
    return {point for point, is_doubted in found.items() if is_doubted} - set(payment.accepted)


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
    payment = PaymentView(amount_minor=450, currency="USD")
    owed: list[tuple[Effect, int]] = []
    statements = [Observation(Source.WEBHOOK, status=walk[pick % len(walk)]) for pick in picks]
    answer = Observation(Source.POLL, status=walk[-1], as_of=now)
    for said in (*statements, answer):
        decision = decide(life, payment, said, now + timedelta(seconds=1))
        assert decision.outcome in (Outcome.ADVANCED, Outcome.UNCHANGED, Outcome.STALE)
        assert decision.review is None
        owed += [due[:2] for due in decision.effects]
        if decision.to_state is not None:
            payment = replace(payment, state=decision.to_state, state_as_of=said.as_of)
        payment = replace(payment, counts=decision.counts or payment.counts)

    assert walk[-1] == payment.state
    again = [due for due in owed if due[0] is not Effect.PAID]
    assert len(set(again)) == len(again), "due twice"


@settings(max_examples=150)
@given(questions(), st.lists(st.tuples(st.integers(0, 50), st.sampled_from([None, None, 0, -1, 450])), max_size=12))
def test_goods_wait_until_their_money_is_known_and_are_owed_once(question, picks):
    """A payment that nobody asked for here: no goods before an amount above zero was said, and then those due."""
    life, _, _, now = question
    walk: list[str] = []
    while len(walk) < len(picks) and (targets := life.moves.get(walk[-1], ()) if walk else life.initial):
        walk.append(targets[picks[len(walk)][0] % len(targets)])
    if not walk:
        return
    payment = PaymentView()
    owed: list[Effect] = []
    answer = (len(walk) - 1, 450, Source.POLL)
    for pick, amount, source in (*((pick % len(walk), amount, Source.WEBHOOK) for pick, amount in picks), answer):
        amount = amount if payment.amount_minor is None else None
        said = Observation(source, status=walk[pick], amount_minor=amount, currency="USD", as_of=now)
        decision = decide(life, payment, said, now)
        owed += told(decision)
        is_known = (payment.amount_minor or as_refund(life, said).amount_minor or 0) > 0
        assert is_known or FULFILMENT_EFFECTS.isdisjoint(told(decision))
        payment = replace(payment, state=decision.to_state or payment.state, state_as_of=now)
        payment = replace(payment, counts=decision.counts or payment.counts)
        if decision.review is not None or decision.closes_review:
            payment = replace(payment, review=decision.review, disputed=decision.disputed)
        learnt = as_refund(life, said).amount_minor
        if payment.amount_minor is None and learnt is not None and learnt > 0:
            payment = replace(payment, amount_minor=learnt, currency="USD")

    assert payment.state == walk[-1]
    if life.phase(walk[-1]) in FULFILMENT_PHASES:
        assert payment.review is None
        assert EFFECTS[life.phase(walk[-1])] <= set(owed)
