"""Actions of people and keys, and reconciliations, as lists over HTTP; on both databases."""

from datetime import timedelta

import pytest

from storage import operator_actions, reconciliations
from storage.ids import new_id
from storage.reconciliations import ReconciliationRequest
from storage.types import ReconciliationStatus
from tests.support.api import error

HOUR = timedelta(hours=1)

DRIFT = {
    "payment": new_id(),
    "kind": "payin",
    "provider_ref": "p-1",
    "reference": None,
    "was": "pending",
    "is": "success",
    "phase": "paid",
    "is_adopted": False,
    "since": "2026-11-20T10:00:00+00:00",
    "found_at": "2026-11-21T10:00:00+00:00",
    "unknown_for_seconds": 86400.0,
    "at_most_seconds": 86400.0,
    "is_fresh": False,
    "is_alarming": True,
    "effects": ["payment.paid"],
    "reviews": [],
    "found_by": "fetch",
    "message": new_id(),
    "reason": "pending -> success",
}
UNASKED = {"payment": None, "kind": None, "provider_ref": None, "code": "provider_away", "reason": "no answer"}


@pytest.fixture(params=["postgresql", "sqlite"])
def api(request):
    return request.getfixturevalue("api" if request.param == "sqlite" else "api_on_postgresql")


def act(api, subject, account="payfield", actor="Ada L.", action="resolve"):
    with api.service.database.write() as unit:
        operator_actions.note(
            unit,
            account=account,
            at=api.service.clock(),
            actor=actor,
            action=action,
            subject=subject,
            reason="saw the bank statement",
        )


def reconcile(api, account="payfield", status=ReconciliationStatus.DONE, **found):
    now = api.service.clock()
    with api.service.database.write() as unit:
        row = reconciliations.begin(
            unit, ReconciliationRequest(account, now - HOUR, now, "schedule"), "process 1", now, HOUR
        )
        if status is not ReconciliationStatus.RUNNING:
            reconciliations.finish(unit, row, now, status, **found)
    return row.id


def subjects(answer):
    assert answer.status_code == 200, answer.text
    return [row["subject"] for row in answer.json()["data"]]


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


def test_actions_are_listed_by_each_filter_and_only_of_reached_accounts(api):
    one, other, third = new_id(), new_id(), new_id()
    act(api, one)
    act(api, other, actor="Grace H.", action="redrive")
    act(api, third, account="stable")
    act(api, new_id(), account="shop-live")
    act(api, "a-key", account=None, action="revoke_key")
    client = api.client()

    def found(**params):
        return subjects(client.get("/v1/actions", params=params))

    assert found() == [third, other, one]
    assert found(account="stable") == [third]
    assert found(actor="Grace H.") == [other]
    assert found(action="resolve") == [third, one]
    assert found(subject=one) == [one]
    assert found(subject="nothing") == []
    assert error(client.get("/v1/actions", params={"account": "shop-live"}), 403)["code"] == "environment_mismatch"
    assert client.get("/v1/actions", params={"subject": one}).json()["data"][0] == {
        **client.get("/v1/actions").json()["data"][2],
        "actor": "Ada L.",
        "reason": "saw the bank statement",
    }


def test_pages_of_actions_go_on(api):
    wanted = [new_id() for _ in range(5)]
    for subject in wanted:
        act(api, subject)
    client, walked, after = api.client(), [], {}
    while True:
        answer = client.get("/v1/actions", params={"limit": 2, **after})
        walked += subjects(answer)
        if not answer.json()["has_more"]:
            break
        after = {"after": answer.json()["next"]}

    assert walked == wanted[::-1]


def test_reconciliations_are_listed_and_shown_with_their_drift(api):
    done = reconcile(api, drift=[DRIFT], unasked=[UNASKED], counts={"drift": 1})
    running = reconcile(api, status=ReconciliationStatus.RUNNING)
    other = reconcile(api, account="stable")
    live = reconcile(api, account="shop-live")
    client = api.client()

    def found(**params):
        return ids(client.get("/v1/reconciliations", params=params))

    assert found() == [other, running, done]
    assert found(account="payfield") == [running, done]
    assert found(status="running") == [running]
    first = client.get("/v1/reconciliations", params={"limit": 1}).json()
    assert (first["has_more"], first["next"]) == (True, other)
    assert found(limit=1, after=other) == [running]
    assert "drift" not in first["data"][0]
    shown = client.get(f"/v1/reconciliations/{done}").json()
    assert shown["counts"] == {"drift": 1}
    assert (shown["drift"][0]["was"], shown["drift"][0]["now"]) == ("pending", "success")
    assert shown["unasked"] == [UNASKED]
    assert error(client.get(f"/v1/reconciliations/{live}"), 403)["code"] == "environment_mismatch"
    assert error(client.get(f"/v1/reconciliations/{new_id()}"), 404)["code"].endswith("_not_found")
