"""What came, what is owed and what was not authentic, over HTTP: shown without bytes, and put right by a named key."""

from datetime import timedelta

import pytest

from service.permissions import KeyScope
from storage import operator_actions, outbox, quarantine
from storage.ids import new_id
from storage.tables import DeliveryAttempt, RejectedDelivery
from storage.types import OutboxStatus
from tests.support.api import create, error


def dead(api, count=1, sink="shop", account="payfield", effect="payment.paid"):
    """Effects whose only try was refused for good; their ids."""
    found, now = [], api.service.clock()
    for _ in range(count):
        with api.service.database.write() as unit:
            owed = outbox.owe(
                unit,
                payment_id=new_id(),
                account=account,
                effect=effect,
                sink=sink,
                occurrence=0,
                cause=new_id(),
                payload='{"data": {}}',
                now=now,
            )
            (claimed,) = outbox.claim_of_others(unit, now, timedelta(minutes=1), [], 1)
            tried = DeliveryAttempt(
                id="",
                outbox_id="",
                number=0,
                started_at=now,
                duration_ms=5,
                http_status=410,
                outcome="dead",
                error="gone",
            )
            outbox.settle(unit, claimed, tried, status=OutboxStatus.DEAD, next_attempt_at=now)
            found.append(owed)
    return found


def overtaken(api, sink="shop", account="payfield"):
    """A dead effect of a payment whose later one was delivered; its id."""
    (first,) = dead(api, sink=sink, account=account)
    now = api.service.clock()
    with api.service.database.write() as unit:
        outbox.owe(
            unit,
            payment_id=outbox.get(unit, first).payment_id,
            account=account,
            effect="payment.refunded",
            sink=sink,
            occurrence=0,
            cause=new_id(),
            payload='{"data": {}}',
            now=now,
        )
        (claimed,) = outbox.claim_of_others(unit, now, timedelta(minutes=1), [], 1)
        tried = DeliveryAttempt(id="", outbox_id="", number=0, started_at=now, duration_ms=5, outcome="delivered")
        outbox.settle(unit, claimed, tried, status=OutboxStatus.DELIVERED, next_attempt_at=now)
    return first


def reject(api, account="payfield", reason="signature_wrong"):
    """A delivery in quarantine; its id."""
    kept = RejectedDelivery(
        id="",
        account=account,
        received_at=api.service.clock(),
        reason=reason,
        client="192.0.2.1",
        headers=[["x-signature", "a-header-of-a-stranger"]],
        body=b"a body of a stranger",
    )
    with api.service.database.write() as unit:
        quarantine.keep(unit, kept, at_most=10)
    return kept.id


def test_messages_are_listed_and_shown_with_their_decision(api):
    client = api.client()
    made = create(client).json()
    found = client.get("/v1/inbox", params={"source": "create", "status": "decided", "payment": made["id"]}).json()

    (message,) = found["data"]
    assert (message["decision"], message["payment"], message["outcomes"][0]["state"]) == (
        "advanced",
        made["id"],
        "pending",
    )
    assert client.get(f"/v1/inbox/{message['id']}").json() == message
    assert "body" not in message
    assert client.get("/v1/inbox", params={"source": "webhook"}).json()["data"] == []


def test_the_bytes_of_a_message_need_the_scope_operate(api):
    made = create(api.client()).json()
    (message,) = api.client().get("/v1/inbox", params={"source": "create"}).json()["data"]
    url = f"/v1/inbox/{message['id']}/body"

    assert error(api.client(api.key(KeyScope.READ)).get(url), 403)["code"] == "scope_missing"
    raw = api.client(api.key(KeyScope.OPERATE)).get(url)
    assert made["reference"].encode() in raw.content
    assert len(raw.content) == message["size_bytes"]
    assert raw.headers["content-type"] == "application/octet-stream"
    assert raw.headers["x-body-digest"] == message["digest"]
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_a_message_is_replayed_with_a_reason(api):
    client = api.client(api.key(name="night shift"))
    create(client)
    (message,) = client.get("/v1/inbox", params={"source": "create"}).json()["data"]
    url = f"/v1/inbox/{message['id']}/replay"

    assert error(client.post(url, json={}), 400)["param"] == "reason"
    again = client.post(url, json={"reason": "the program was mended"}).json()
    assert (again["status"], len(again["outcomes"])) == ("decided", 2)
    with api.service.database.read() as unit:
        (done,) = operator_actions.of_subjects(unit, [message["id"]])
    assert (done.actor, done.action, done.reason) == ("key night shift", "replay", "the program was mended")


def test_a_persons_word_is_not_replayed(api):
    client = api.client()
    made = create(client).json()
    client.post(f"/v1/payments/{made['id']}/resolve", json={"state": "success", "reason": "seen"})
    (message,) = client.get("/v1/inbox", params={"source": "operator"}).json()["data"]

    refused = client.post(f"/v1/inbox/{message['id']}/replay", json={"reason": "r"})
    assert error(refused, 422)["code"] == "invalid_command"


def test_what_is_owed_is_listed_and_shown_with_its_attempts(api):
    client = api.client()
    first, second = dead(api), dead(api, sink="ledger", effect="payment.failed")

    def listed(**params):
        return [row["id"] for row in client.get("/v1/outbox", params=params).json()["data"]]

    assert listed() == [*second, *first]
    assert listed(sink="ledger") == listed(effect="payment.failed") == second
    assert listed(status="pending") == []
    assert listed(account="stable") == []
    shown = client.get(f"/v1/outbox/{first[0]}").json()
    assert (shown["status"], shown["next_attempt_at"], shown["last_error"]) == ("dead", None, "gone")
    (tried,) = shown["delivery_attempts"]
    assert (tried["number"], tried["http_status"], tried["outcome"]) == (1, 410, "dead")


def test_one_dead_effect_is_due_again_once(api):
    client = api.client()
    (owed,) = dead(api)
    url = f"/v1/outbox/{owed}/redrive"

    assert client.post(url, json={"reason": "the shop is back"}).json()["status"] == "pending"
    assert error(client.post(url, json={"reason": "the shop is back"}), 404)["code"] == "outbox_message_not_dead"


def test_many_dead_effects_are_due_again_by_filter_with_counts(api):
    client = api.client()
    shop, ledger = dead(api, 5), dead(api, 2, sink="ledger")
    live = dead(api, account="shop-live")

    def redrive(**body):
        return client.post("/v1/outbox/redrive", json={"reason": "the shop is back", **body}).json()

    first = redrive(sink="shop", limit=3)
    assert (first["redriven"], first["has_more"], first["data"]) == (3, True, shop[:3])
    second = redrive(sink="shop", limit=3)
    assert (second["redriven"], second["has_more"]) == (2, False)
    assert redrive(effect="payment.failed")["redriven"] == 0
    assert redrive()["data"] == ledger
    assert redrive()["redriven"] == 0
    with api.service.database.read() as unit:
        assert outbox.get(unit, live[0]).status == "dead"


def test_a_dead_effect_that_a_later_one_has_overtaken_is_due_again_only_when_that_is_meant(api):
    """One by one and many at once; among many, those that nothing has overtaken are due again all the same."""
    client, why = api.client(), {"reason": "the shop is back"}
    first, other, last = overtaken(api), dead(api)[0], overtaken(api)

    refused = error(client.post(f"/v1/outbox/{first}/redrive", json=why), 409)
    assert (refused["code"], refused["param"]) == ("effect_overtaken", "overtaken")
    assert "payment.paid is older than payment.refunded, which shop has had" in refused["message"]
    many = client.post("/v1/outbox/redrive", json={**why, "sink": "shop", "limit": 1}).json()
    assert (many["data"], many["overtaken"]) == ([other], [first])
    many = client.post("/v1/outbox/redrive", json={**why, "sink": "shop"}).json()
    assert (many["data"], many["overtaken"], many["has_more"]) == ([], [first, last], False)
    meant = {**why, "overtaken": True}
    assert client.post(f"/v1/outbox/{first}/redrive", json=meant).json()["status"] == "pending"
    assert client.post("/v1/outbox/redrive", json={**meant, "sink": "shop"}).json()["data"] == [last]


def test_rejected_deliveries_are_shown_without_what_a_stranger_sent(api):
    client = api.client()
    rejected, other = reject(api), reject(api, reason="timestamp_stale")
    reject(api, account="shop-live")

    listed = client.get("/v1/rejected")
    assert [row["id"] for row in listed.json()["data"]] == [other, rejected]
    assert "stranger" not in listed.text
    assert [row["id"] for row in client.get("/v1/rejected", params={"reason": "signature_wrong"}).json()["data"]] == [
        rejected
    ]
    shown = client.get(f"/v1/rejected/{rejected}").json()
    assert (shown["client"], shown["size_bytes"]) == ("192.0.2.1", 20)


@pytest.mark.parametrize("path", ["inbox", "outbox", "rejected"])
def test_what_is_not_there_and_what_is_another_environments(api, path):
    client = api.client()
    live = {"outbox": lambda: dead(api, account="shop-live")[0], "rejected": lambda: reject(api, account="shop-live")}

    assert error(client.get(f"/v1/{path}/{new_id()}"), 404)["code"].endswith("_not_found")
    if path in live:
        assert error(client.get(f"/v1/{path}/{live[path]()}"), 403)["code"] == "environment_mismatch"


def test_accounts_and_lifecycles_are_told_without_secrets(api):
    client = api.client()
    listed = client.get("/v1/accounts")

    assert [account["name"] for account in listed.json()["data"]] == [
        "alternative",
        "stable",
        "payfield",
        "payfield-old",
        "banked",
    ]
    assert "secret" not in listed.text
    shown = client.get("/v1/accounts/payfield").json()
    assert shown["webhook_url"].endswith("/webhooks/payfield")
    assert shown["capabilities"] == {"create": ["payin", "payout"], "ask": ["payin", "payout"]}
    assert (shown["default_kind"], shown["kinds"]) == ("payin", ["payin", "payout"])
    assert error(client.get("/v1/accounts/shop-live"), 403)["code"] == "environment_mismatch"
    assert error(client.get("/v1/accounts/nobody"), 404)["code"] == "unknown_account"
    kinds = client.get("/v1/lifecycles", params={"provider": "payfield"}).json()["data"]
    assert [life["kind"] for life in kinds] == ["payin", "payout"]


def test_push_quality_is_told_by_account(api):
    service = api.service
    create(api.client())
    service.push_monitor().step()
    found = api.client().get("/v1/push-quality", params={"days": 2}).json()["data"]

    assert {figures["account"] for figures in found} <= set(service.accounts) - {"shop-live"}
    assert found
