"""Lists: filters, pages that stay put while rows are added, and walks in both directions; on both databases."""

from datetime import timedelta

import pytest

from api.credentials import Environment
from storage.ids import new_id
from tests.support.api import error


@pytest.fixture(params=["sqlite", "postgresql"])
def api(request):
    return request.getfixturevalue("api" if request.param == "sqlite" else "api_on_postgresql")


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


def test_pages_stay_put_while_payments_are_added(api):
    known = [payment.id for payment in api.payments(10)]
    client, walked, after = api.client(), [], None
    while True:
        params = {"limit": 3, **({"after": after} if after else {})}
        page = client.get("/v1/payments", params=params).json()
        walked += [row["id"] for row in page["data"]]
        api.payments(2)
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        after = page["next"]

    assert walked == known[::-1]


def test_the_walk_back_ends_at_the_newest(api):
    known = [payment.id for payment in api.payments(7)]
    client, walked, before = api.client(), [], known[0]
    while before:
        page = client.get("/v1/payments", params={"limit": 2, "before": before}).json()
        walked = [row["id"] for row in page["data"]] + walked
        before = page["next"]

    assert walked == known[:0:-1]


def test_between_two_ids_lies_what_is_between_them(api):
    known = [payment.id for payment in api.payments(5)]
    found = api.client().get("/v1/payments", params={"after": known[4], "before": known[1]})

    assert ids(found) == [known[3], known[2]]


def test_every_filter_finds_what_it_says(api):
    old = api.service.clock() - timedelta(days=2)
    (a,) = api.payments(reference="r-1", provider_ref="p-1", amount_minor=100, state="pending")
    (b,) = api.payments(reference="r-2", provider_ref="p-2", amount_minor=200, state="success", phase="paid")
    (c,) = api.payments(account="stable", kind="payment_intent", currency="USD", amount_minor=300)
    (d,) = api.payments(review="conflict", amount_minor=400, created_at=old, changed_at=old)
    since = (old + timedelta(hours=1)).isoformat()
    expected = {
        ("account", "stable"): [c],
        ("kind", "payin"): [d, b, a],
        ("phase", "paid"): [b],
        ("state", "pending"): [a],
        ("reference", "r-2"): [b],
        ("reference", "r-3"): [],
        ("provider_ref", "p-1"): [a],
        ("in_review", "true"): [d],
        ("in_review", "false"): [c, b, a],
        ("currency", "usd"): [c],
        ("amount_from", "300"): [d, c],
        ("amount_to", "200"): [b, a],
        ("created_from", since): [c, b, a],
        ("created_before", since): [d],
        ("changed_from", since): [c, b, a],
        ("changed_before", since): [d],
    }
    client = api.client()

    for (name, value), wanted in expected.items():
        assert ids(client.get("/v1/payments", params={name: value})) == [p.id for p in wanted], (name, value)
    both = client.get("/v1/payments", params={"amount_from": 200, "amount_to": 300, "phase": "open"})
    assert ids(both) == [c.id]


def test_a_list_shows_the_keys_own_environment(api):
    (test,), (live,) = api.payments(), api.payments(account="shop-live")
    api.payments(account="not-configured-any-more")

    assert ids(api.client().get("/v1/payments")) == [test.id]
    assert ids(api.client(api.key(environment=Environment.LIVE)).get("/v1/payments")) == [live.id]


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "invalid_value", "limit"),
        ("limit=101", "invalid_value", "limit"),
        ("limit=1_0", "invalid_value", "limit"),
        ("limit=%D9%A1", "invalid_value", "limit"),
        ("limit=1&limit=2", "repeated_field", "limit"),
        ("after=x", "invalid_value", "after"),
        ("phases=paid", "unknown_field", "phases"),
        ("phase=heaven", "invalid_value", "phase"),
        ("in_review=yes", "invalid_value", "in_review"),
        ("created_from=yesterday", "invalid_value", "created_from"),
        ("created_from=2026-02-30T00:00:00Z", "invalid_value", "created_from"),
        ("created_from=2026-02-03T00:00:00", "invalid_value", "created_from"),
        ("amount_from=99999999999999999999999", "invalid_value", "amount_from"),
        ("reference=%00", "invalid_value", "reference"),
        ("reference=%ff", "invalid_query", None),
    ],
)
def test_a_query_that_says_nothing_is_refused(shared, query, code, param):
    refused = error(shared.client().get(f"/v1/payments?{query}"), 400)

    assert (refused["code"], refused["param"]) == (code, param)


def test_the_first_and_the_last_instants_are_instants(api):
    (payment,) = api.payments()
    query = "created_from=0001-01-01T00:00:00%2B23:59&created_before=9999-12-31T23:59:60.9999999-23:59"

    assert ids(api.client().get(f"/v1/payments?{query}")) == [payment.id]


def test_an_account_that_is_not_there_or_not_reached(api):
    client = api.client()

    for path in ("payments", "inbox", "outbox", "rejected", "events", "push-quality"):
        assert error(client.get(f"/v1/{path}?account=nobody"), 404)["code"] == "unknown_account"
        assert error(client.get(f"/v1/{path}?account=shop-live"), 403)["code"] == "environment_mismatch"


def test_a_cursor_need_not_exist_any_more(api):
    known = [payment.id for payment in api.payments(2)]

    assert ids(api.client().get("/v1/payments", params={"after": new_id()})) == known[::-1]
