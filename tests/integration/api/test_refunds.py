"""Refunds over the API: recorded, sent once for each key, and told by the provider's word."""

import httpx2

from storage.ids import new_id
from tests.support.api import create, error
from tests.support.at_the_sandbox import act


def paid(api, sandbox_url) -> tuple[httpx2.Client, str]:
    """A client, and a payment of 500.00 GBP at Banked that is paid."""
    client = api.client()
    made = create(client, account="banked", currency="GBP", reference=new_id()[-12:].replace("-", ""), extra={})
    payment = made.json()
    act(sandbox_url, "banked", payment["kind"], payment["provider_ref"], "pay")
    assert client.post(f"/v1/payments/{payment['id']}/refresh", json={}).json()["phase"] == "paid"
    return client, payment["id"]


def refund(client, payment_id, key, **body):
    return client.post(f"/v1/payments/{payment_id}/refund", json=body, headers={"idempotency-key": key})


def test_a_part_is_refunded_once_for_each_key(api, sandbox_url):
    client, payment_id = paid(api, sandbox_url)

    first = refund(client, payment_id, "return-1", amount_minor=234)
    again = refund(client, payment_id, "return-1", amount_minor=234)

    assert first.status_code == 200, first.text
    (part,) = first.json()["parts"]
    assert (part["kind"], part["amount_minor"], part["status"]) == ("refund", 234, "pending")
    assert again.json()["parts"] == [part]


def test_all_that_remains_is_refunded_and_no_more(api, sandbox_url):
    client, payment_id = paid(api, sandbox_url)
    refund(client, payment_id, "return-1", amount_minor=234)

    refused = error(refund(client, payment_id, "return-2", amount_minor=49_767), 409)
    whole = refund(client, payment_id, "return-3").json()
    nothing = error(refund(client, payment_id, "return-4"), 409)

    assert (refused["code"], nothing["code"]) == ("amount_exceeded", "amount_exceeded")
    assert sorted(part["amount_minor"] for part in whole["parts"]) == [234, 49_766]


def test_a_key_is_needed_and_means_one_amount(api, sandbox_url):
    client, payment_id = paid(api, sandbox_url)
    refund(client, payment_id, "return-1", amount_minor=234)

    error(client.post(f"/v1/payments/{payment_id}/refund", json={}), 400)
    error(refund(client, payment_id, "return-1", amount_minor=235), 409)

    assert len(client.get(f"/v1/payments/{payment_id}").json()["parts"]) == 1
