"""Comparing what was pushed with what was found: rules that rows of one provider alone would not show."""

from datetime import timedelta

import pytest

from poller.webhook_health import PushReading, QualityTally, certainly_passed, count_pushes, verdict
from storage.tables import Transition
from tests.support.builders import PROVIDERS, a_lifecycle
from tests.support.clock import START

GRACE = timedelta(minutes=15)
LOOP = a_lifecycle(
    moves={"new": ("paid", "failed"), "paid": ("new", "settled")},
)


def a_transition(number, from_state, to_state, at=0, source="poll", **changes):
    defaults = {"id": f"t{number}", "account": "acme", "payment_id": "p", "phase": "open", "cause": "m"}
    return Transition(
        **defaults,
        evidence="",
        reason="",
        number=number,
        from_state=from_state,
        to_state=to_state,
        source=source,
        recorded_at=START + timedelta(seconds=at),
        prev_hash="",
        hash="",
        **changes,
    )


def a_push(name, state="paid", at=0, **changes):
    defaults = {"payment_id": "p", "kind": "k", "is_hint": False, "is_variant": False, "changed_at": None}
    return PushReading(
        id=name, state=state, received_at=START + timedelta(seconds=at), signed_at=None, **(defaults | changes)
    )


def told(*pushes, lifecycle):
    """The figures of these pushes of one payment, in order, by state."""
    tally = QualityTally("acme")
    count_pushes(tally, pushes, {"p": pushes}, {"k": lifecycle})
    return {
        event: (row.deliveries, row.duplicates, row.reordered) for (_, event, _), row in tally.rows.items() if event
    }


@pytest.mark.parametrize(
    ("pushed_at", "says"), [(None, "lost"), (99, "pushed"), (100, "pushed"), (101, "late"), (1001, "lost")]
)
def test_a_change_is_pushed_late_or_lost_by_when_the_first_push_of_it_came(pushed_at, says):
    found = a_transition(2, "new", "paid", at=100)
    pushes = [] if pushed_at is None else [a_push("a", at=pushed_at), a_push("b", at=5000)]

    assert verdict(found, "paid", [found], pushes, GRACE) == says


def test_a_push_of_another_visit_to_the_state_says_nothing_of_this_one():
    first, back = a_transition(2, "new", "paid", at=100), a_transition(3, "paid", "new", at=200)
    second = a_transition(4, "new", "paid", at=300)
    chain, pushes = [first, back, second], [a_push("a", at=90)]

    assert verdict(first, "paid", chain, pushes, GRACE) == "pushed"
    assert verdict(second, "paid", chain, pushes, GRACE) == "lost"


def test_a_hint_says_something_of_what_changed_after_the_last_statement():
    """Not of what had changed before; and it may come before that statement was recorded here."""
    before = a_transition(1, None, "new", at=100, as_of=START + timedelta(seconds=50))
    found = a_transition(2, "new", "paid", at=200)

    for at, says in ((40, "lost"), (60, "pushed"), (150, "pushed"), (250, "late")):
        hint = a_push("a", "", at=at, is_hint=True)
        assert verdict(found, "paid", [before, found], [hint], GRACE) == says


def test_a_hint_says_nothing_of_what_is_found_long_after_it():
    """It was asked about at once: hours later something else has changed."""
    found = a_transition(2, "new", "paid", at=10_000)

    for at, says in ((10_000 - 899, "pushed"), (10_000 - 901, "lost")):
        assert verdict(found, "paid", [found], [a_push("a", "", at=at, is_hint=True)], GRACE) == says


def test_a_variant_tells_of_no_change():
    found = a_transition(2, "new", "paid", at=100)

    assert verdict(found, "paid", [found], [a_push("a", is_variant=True)], GRACE) == "lost"


@pytest.mark.parametrize(
    ("provider", "kind", "start", "end", "via", "sure"),
    [
        ("stable_genius", "payment_intent", "awaiting_payment", "settled", ["confirmed"], ["confirmed"]),
        ("payfield", "payin", "pending", "refunded", ["success"], ["success"]),
        ("banked", "payin", "AWAITING_AUTHORIZATION", "SENT", ["INITIATED"], ["INITIATED"]),
        ("banked", "payin", "INITIATED", "SENT", ["PENDING"], []),
        (
            "banked",
            "payment_session",
            "awaiting_provider",
            "sent",
            ["awaiting_payment_consent"],
            ["awaiting_payment_consent"],
        ),
    ],
)
def test_a_state_was_passed_for_certain_where_there_is_no_way_around_it(provider, kind, start, end, via, sure):
    lifecycle = PROVIDERS[provider].lifecycles[kind]

    assert certainly_passed(lifecycle, a_transition(3, start, end, via=via)) == sure


def test_told_again_is_a_duplicate_and_told_after_a_later_one_is_reordered():
    life = a_lifecycle()

    assert told(a_push("a"), a_push("b"), lifecycle=life) == {"paid": (2, 1, 0)}
    assert told(a_push("a", "settled"), a_push("b"), lifecycle=life) == {"settled": (1, 0, 0), "paid": (1, 0, 1)}
    assert told(a_push("a", "settled"), a_push("b"), a_push("c"), lifecycle=life)["paid"] == (2, 1, 1)
    assert told(a_push("a", "failed"), a_push("b"), lifecycle=life)["paid"] == (1, 0, 0)


def test_a_state_that_is_entered_again_is_told_again_without_being_a_duplicate():
    """In a loop the push before it, and the provider's own time, say whether it is news."""
    news = told(a_push("a", "new"), a_push("b"), a_push("c", "new"), lifecycle=LOOP)
    assert news["new"] == (2, 0, 0)

    times = [START, START + timedelta(seconds=9)]
    repeat = told(
        a_push("a", "new", changed_at=times[0]),
        a_push("b", changed_at=times[1]),
        a_push("c", "new", changed_at=times[0]),
        lifecycle=LOOP,
    )
    assert repeat["new"] == (2, 1, 0)

    late = told(a_push("a", changed_at=times[1]), a_push("b", "new", changed_at=times[0]), lifecycle=LOOP)
    assert late["new"] == (1, 0, 1)
