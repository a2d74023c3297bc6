"""Walking through what a provider has, on a real file, with a client that answers as scripted."""

import pytest
from structlog.testing import capture_logs

from providers.errors import ProviderError
from statemachine import own_statements
from statemachine.phases import ConflictPolicy, Review
from storage import inbox

HOUR = 3600
AWAY = ProviderError("away", http_status=503, may_retry=True)
GONE = ProviderError("no such intent", http_status=404)


def by_ref(row):
    return {entry["provider_ref"]: entry for entry in row.drift}


def keys(rounds, source):
    with rounds.database.read() as unit:
        return [message.delivery_key for message in inbox.find(unit, source=source)]


def test_what_was_never_heard_of_is_adopted(rounds):
    for ref in ("pi_1", "pi_2", "pi_3"):
        rounds.genius.has(ref, "confirmed", metadata={"reference": f"order {ref}"})
    rounds.clock.advance(2 * HOUR)

    row = rounds.walk()

    assert {p.provider_ref: p.state for p in rounds.desk.payments()} == dict.fromkeys(
        rounds.genius.intents, "confirmed"
    )
    assert (row.status, row.pages, row.listed, row.asked, row.counts["adopted"]) == ("done", 2, 3, 0, 3)
    entry = by_ref(row)["pi_1"]
    assert (entry["was"], entry["is"], entry["is_adopted"], entry["found_by"]) == (None, "confirmed", True, "list")
    assert (entry["effects"], entry["unknown_for_seconds"], entry["is_fresh"]) == (["payment.paid"], 2 * HOUR, False)
    assert rounds.row(row.id).drift == row.drift


def test_pages_are_kept_verbatim_under_keys_of_the_walk(rounds):
    rounds.genius.has("pi_1", "confirmed")
    row = rounds.walk()

    assert keys(rounds, "list") == [f"reconcile:{row.id}:page:1"]
    with rounds.database.read() as unit:
        (page,) = inbox.find(unit, source="list")
    assert b'"object": "list"' in page.body
    assert page.provider_time == rounds.clock()


def test_what_the_list_does_not_name_is_asked_about(rounds):
    rounds.known("pi_1", is_old=True)
    rounds.known("pi_2")
    rounds.clock.advance(HOUR)
    rounds.genius.has("pi_1", "confirmed")
    rounds.clock.advance(HOUR)

    row = rounds.walk()

    assert rounds.genius.asked == [("payment_intent", "pi_1")]
    assert keys(rounds, "poll") == [f"reconcile:{row.id}:{rounds.desk.payment('pi_1').id}"]
    assert (row.to_ask, row.asked, row.failed) == (1, 1, 0)
    (entry,) = row.drift
    assert (entry["provider_ref"], entry["was"], entry["is"], entry["found_by"]) == (
        "pi_1",
        "awaiting_payment",
        "confirmed",
        "fetch",
    )
    assert (entry["unknown_for_seconds"], entry["at_most_seconds"]) == (HOUR, HOUR)
    assert row.counts["unchanged"] == 1


def test_a_provider_without_a_list_is_asked_one_by_one(rounds):
    rounds.genius.has_list = False
    for number in range(40):
        rounds.known(f"pi_{number}")
    rounds.genius.has("pi_7", "expired")

    row = rounds.walk()

    assert sorted(rounds.genius.asked) == sorted(("payment_intent", f"pi_{n}") for n in range(40))
    assert rounds.genius.most_under_way == rounds.concurrency
    assert (row.pages, row.asked, [entry["is"] for entry in row.drift]) == (0, 40, ["expired"])
    assert [(entry["payment"], entry["code"]) for entry in row.unasked] == [(None, "unsupported_by_provider")]


@pytest.mark.parametrize(
    ("state", "is_asked"),
    [
        ("awaiting_payment", True),
        ("confirmed", True),
        ("expired", True),
        ("cancelled", True),
        ("settled", False),
    ],
)
def test_the_rest_is_what_can_still_differ(rounds, state, is_asked):
    rounds.known("pi_1", state, is_old=True)
    rounds.clock.advance(HOUR)
    rounds.walk()

    assert (rounds.genius.asked != []) is is_asked


def test_the_range_bounds_the_rest(rounds):
    """Neither created nor changed in it: not asked about, however open."""
    rounds.known("pi_old", is_old=True)
    rounds.known("pi_moved", is_old=True)
    rounds.clock.advance(5 * 24 * HOUR)
    rounds.desk.told("confirmed", "pi_moved")
    rounds.clock.advance(1)
    rounds.walk()

    assert rounds.genius.asked == [("payment_intent", "pi_moved")]


def test_what_the_list_only_names_is_asked_about_too(rounds):
    """A status that we do not know, or none at all, tells nothing; nor does one that contradicts us."""
    rounds.known("pi_1", "expired")
    rounds.known("pi_2")
    rounds.clock.advance(HOUR)
    listed = dict(rounds.genius.intents)
    rounds.genius.intents = {
        "pi_1": {**listed["pi_1"], "status": "confirmed"},
        "pi_2": {**listed["pi_2"], "status": None},
    }
    rounds.walk()

    assert sorted(ref for _, ref in rounds.genius.asked) == ["pi_1", "pi_2"]


def test_late_money_opens_a_review_and_is_drift_once(rounds):
    rounds.known("pi_1", "expired")
    rounds.clock.advance(HOUR)
    rounds.genius.has("pi_1", "confirmed")

    first, second = rounds.walk(), rounds.walk()

    (entry,) = first.drift
    assert (entry["was"], entry["is"], entry["reviews"]) == ("expired", "expired", [Review.CONFLICT])
    assert entry["effects"] == ["payment.review_required"]
    assert "confirmed cannot follow expired" in entry["reason"]
    assert (second.drift, second.counts["conflict"]) == ([], 2)


def test_an_account_that_trusts_its_provider_follows_it(rounds):
    rounds.desk.rule(policy=ConflictPolicy.TRUST_PROVIDER)
    rounds.known("pi_1", "expired")
    rounds.clock.advance(HOUR)
    rounds.genius.has("pi_1", "confirmed")

    (entry,) = rounds.walk().drift
    assert (entry["was"], entry["is"], entry["effects"]) == ("expired", "confirmed", ["payment.paid"])


def test_where_unknown_payments_are_parked_they_stay_parked(rounds):
    rounds.desk.rule(adopts_unknown=False)
    rounds.genius.has("pi_1", "confirmed")

    row = rounds.walk()

    assert rounds.desk.payments() == []
    assert (row.drift, row.counts["unknown_here"]) == ([], 1)


def test_a_second_walk_finds_nothing(rounds):
    rounds.genius.has("pi_1", "confirmed")
    rounds.known("pi_2", is_old=True)
    rounds.genius.has("pi_2", "confirmed")
    rounds.walk()
    owed = {p.id: rounds.desk.effects(p.id) for p in rounds.desk.payments()}

    row = rounds.walk()

    assert row.drift == []
    assert {p.id: rounds.desk.effects(p.id) for p in rounds.desk.payments()} == owed
    assert set(map(tuple, owed.values())) == {("payment.paid",)}


def test_what_a_webhook_tells_during_the_walk_is_no_drift(rounds):
    """The answer finds nothing to change, and the effect is owed once."""
    rounds.known("pi_1", is_old=True)

    async def overtaken(kind, ref):
        rounds.genius.has("pi_1", "confirmed", is_old=True)
        rounds.desk.told("confirmed", "pi_1")
        return rounds.genius.present(kind, ref)

    rounds.genius.fetch = overtaken
    row = rounds.walk()

    assert (row.drift, row.counts["unchanged"]) == ([], 1)
    assert rounds.desk.effects(rounds.desk.payment().id) == ["payment.paid"]


def test_a_webhook_after_the_walk_owes_nothing_again(rounds):
    rounds.known("pi_1", is_old=True)
    rounds.clock.advance(HOUR)
    rounds.genius.has("pi_1", "confirmed")
    rounds.walk()
    rounds.world.run(rounds.world.poller("acme").step())
    rounds.desk.told("confirmed", "pi_1")

    assert rounds.desk.effects(rounds.desk.payment().id) == ["payment.paid"]
    assert len(rounds.desk.chain(rounds.desk.payment().id)) == 2


def test_a_page_that_is_put_off_is_waited_for(rounds):
    """A create call is under way, which may turn out to have made what the page names: it is read again after that."""
    rounds.desk.wish("order-1")
    rounds.genius.has("pi_1", "confirmed", metadata={"reference": "order-2"})

    row = rounds.walk()

    assert (row.counts["adopted"], row.counts.get("unapplied")) == (1, None)
    assert sum(rounds.slept) >= 120


def test_what_is_never_applied_is_counted(rounds, monkeypatch):
    rounds.genius.has("pi_1", "confirmed")

    async def nobody(_ids):
        return None

    rounds._apply = nobody
    row = rounds.walk()

    assert (row.status, row.counts["unapplied"], row.drift) == ("done", 1, [])


def test_an_error_of_one_payment_is_told_and_ends_nothing(rounds):
    for number in range(4):
        rounds.known(f"pi_{number}", is_old=True)
    rounds.genius.faults = {"pi_1": [GONE], "pi_2": [ProviderError("refused", http_status=403, provider_code="no")]}

    with capture_logs() as logs:
        row = rounds.walk()

    assert (row.status, row.to_ask, row.asked, row.failed) == ("done", 4, 2, 2)
    assert {entry["provider_ref"]: entry["code"] for entry in row.unasked} == {
        "pi_1": "provider_error",
        "pi_2": "no",
    }
    assert sum(entry["event"] == "reconcile.failed" for entry in logs) == 2


def test_a_bug_that_one_payment_meets_is_counted_and_logged(rounds):
    rounds.known("pi_1", is_old=True)
    rounds.known("pi_2", is_old=True)
    rounds.genius.faults = {"pi_1": [RuntimeError("oops")]}

    with capture_logs() as logs:
        row = rounds.walk()

    assert (row.asked, row.failed, row.unasked[0]["code"]) == (1, 1, "internal")
    assert [e["log_level"] for e in logs if e["event"] == "reconcile.failed"] == ["error"]


def test_a_bug_that_the_list_meets_keeps_nobody_from_being_asked(rounds):
    rounds.known("pi_1", is_old=True)
    rounds.genius.faults = {"list": [RuntimeError("oops")]}

    with capture_logs() as logs:
        row = rounds.walk()

    assert (row.status, row.asked, row.unasked[0]["code"]) == ("done", 1, "internal")
    assert [e["log_level"] for e in logs if e["event"] == "reconcile.failed"] == ["error"]


@pytest.mark.parametrize("what", ["pi_1", "list"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_be_repeated_is_repeated(rounds, what, status):
    rounds.known("pi_1", is_old=True)
    rounds.genius.faults = {what: [ProviderError("no", http_status=status, may_retry=True, retry_after=7)] * 2}

    row = rounds.walk()

    assert (row.status, row.asked, row.failed, row.unasked) == ("done", 1, 0, [])
    assert len(rounds.slept) == 2
    assert min(rounds.slept) >= 7


def test_a_create_that_left_no_answer_cannot_be_asked_about(rounds):
    payment_id = rounds.desk.wish()
    rounds.clock.advance(1)

    row = rounds.walk()

    assert [(entry["payment"], entry["code"]) for entry in row.unasked] == [(payment_id, "unnamed")]
    assert (row.to_ask, row.failed, rounds.genius.asked) == (0, 0, [])


def test_a_payment_whose_create_was_lost_is_bound_and_not_adopted(rounds):
    payment_id = rounds.desk.wish("order-1")
    rounds.clock.advance(HOUR)
    rounds.genius.has("pi_1", "confirmed", metadata={"reference": "order-1"})

    (entry,) = rounds.walk().drift

    assert (entry["payment"], entry["was"], entry["is"], entry["is_adopted"]) == (payment_id, None, "confirmed", False)


def test_what_was_never_created_is_not_asked_about(rounds):
    payment_id = rounds.desk.wish()
    rounds.desk.say(own_statements.CallFailed("create", "no", "no", 400, is_ambiguous=False), payment_id)
    rounds.desk.work()
    rounds.clock.advance(1)

    row = rounds.walk()

    assert (row.to_ask, row.unasked) == (0, [])
