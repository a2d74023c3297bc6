"""Every row of the answer table, for all four providers."""

import hashlib
import hmac
import json
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from storage.types import InboxStatus
from tests.support.deliveries import (
    KEYS,
    OLD_KEYS,
    PROVIDERS,
    SIGNATURE_HEADER,
    SIGNED,
    event,
    sign,
    unused,
)
from tests.support.serving import Served, eventually, serving, settings

every_account = pytest.mark.parametrize("account", PROVIDERS)
every_signed = pytest.mark.parametrize("account", SIGNED)


@every_account
def test_a_delivery_is_recorded_once_verbatim(served: Served, account: str) -> None:
    """The exact bytes, headers and key id are in the inbox under the id that the answer names."""
    delivery = event(account)
    answer = served.post(delivery)
    (row,) = served.rows()
    assert (200, {"received": True, "id": row.id}) == (answer.status, answer.json())
    assert (account, delivery.body, "new", "webhook") == (row.account, row.body, row.key_id, row.source)
    kept = dict(row.headers)
    for name, value in delivery.headers:
        if name != "Authorization":
            assert value == kept[name.lower()]
    assert answer.headers["cache-control"] == "no-store"


@every_account
def test_a_duplicate_is_answered_200_and_counted(served: Served, account: str) -> None:
    """A redelivery adds no row; it is counted on the first, which the answer names again.

    What has no id of its own is known by the five seconds in which it came.
    """
    delivery, began_s = event(account), time.time()
    answers = [served.post(delivery) for _ in range(3)]
    rows, spans = served.rows(), int(time.time()) // 5 - int(began_s) // 5 + 1
    assert 1 <= len(rows) <= (1 if account in SIGNED else spans)
    assert {(200, row.id) for row in rows} == {(answer.status, answer.json()["id"]) for answer in answers}
    assert sum(row.redeliveries for row in rows) == 3 - len(rows)
    assert all((row.last_redelivered_at is not None) == (row.redeliveries > 0) for row in rows)


@every_signed
def test_the_same_id_with_other_content_is_kept_and_flagged(served: Served, account: str) -> None:
    """One identity with two contents is two rows, the second a variant of the first; its redelivery adds none."""
    first = event(account)
    other = sign(account, json.dumps({**json.loads(first.body), "amount": "7.00"}).encode())
    assert [served.post(delivery).status for delivery in (first, other, other)] == [200] * 3
    one, two = served.rows()
    assert (first.body, None, 0) == (one.body, one.variant_of, one.redeliveries)
    assert (other.body, one.id, 1) == (two.body, two.variant_of, two.redeliveries)


@every_account
def test_an_authentic_kind_that_is_not_used_is_answered_200(served: Served, account: str) -> None:
    """What we do not use is recorded all the same, so that it can be replayed when we do."""
    delivery = unused(account)
    assert served.post(delivery).status == 200
    assert [delivery.body] == [row.body for row in served.rows()]


@every_account
@pytest.mark.parametrize("body", [b"", b"\x00\xff not JSON", b"[" * 5000, b"null", b'{"id": {}}'])
def test_an_authentic_unreadable_body_is_answered_200_and_recorded(served: Served, account: str, body: bytes) -> None:
    """A body that only the sender understands is kept: a mended parser can read it later."""
    assert served.post(sign(account, body)).status == 200
    (row,) = served.rows()
    assert body == row.body


def test_an_authentic_unreadable_body_is_parked(tmp_path: Path) -> None:
    """The worker parks what it cannot read, where it is seen."""
    with serving(settings(tmp_path), with_work=True) as running:
        assert running.post(sign("sg", b"unreadable")).status == 200
        eventually(lambda: [row.status for row in running.rows()] == [InboxStatus.PARKED])


@every_account
def test_a_missing_signature_is_answered_401_and_quarantined(served: Served, account: str) -> None:
    """Nothing reaches the inbox, and nothing is lost."""
    delivery = event(account).without(SIGNATURE_HEADER[account])
    answer = served.post(delivery)
    assert (
        answer.status,
        answer.error["type"],
        answer.error["code"],
    ) == (401, "authentication_error", "signature_missing")
    (kept,) = served.rejected(account)
    assert (delivery.body, "signature_missing", "127.0.0.1") == (kept.body, kept.reason, kept.client)
    assert served.rows() == []


@every_account
def test_a_wrong_signature_is_answered_401_and_quarantined(served: Served, account: str) -> None:
    """Another's key signs nothing here; what it signed is kept with its signature, for the case that ours is wrong."""
    delivery = sign(account, event(account).body, secret="the-key-of-somebody-else")
    answer = served.post(delivery)
    assert (answer.status, answer.error["code"]) == (401, "signature_wrong")
    (kept,) = served.rejected(account)
    assert (delivery.body, "signature_wrong") == (kept.body, kept.reason)
    given = dict(delivery.headers)["Authorization"] if account == "ap" else None
    assert given not in [value for _, value in kept.headers]


@every_signed
@pytest.mark.parametrize(("ahead", "code"), [(-302, "timestamp_stale"), (+302, "timestamp_future")])
def test_a_signature_outside_its_window_is_answered_401(served: Served, account: str, ahead: int, code: str) -> None:
    """A delivery that somebody kept and sends again later is not fresh."""
    answer = served.post(sign(account, event(account).body, at=time.time() + ahead))
    assert (401, code) == (answer.status, answer.error["code"])
    assert [code] == [kept.reason for kept in served.rejected(account)]


@every_account
def test_a_changed_body_is_answered_401(served: Served, account: str) -> None:
    """A signature holds for the exact bytes (Alternative Payments signs none)."""
    delivery = event(account)
    answer = served.request("POST", delivery.path, delivery.body + b" ", delivery.headers)
    assert (200 if account == "ap" else 401) == answer.status


@every_account
def test_both_keys_verify_while_a_key_is_rotated(served: Served, account: str) -> None:
    """The row says which key it was."""
    for secret in (KEYS[account], OLD_KEYS[account]):
        assert served.post(sign(account, event(account).body, secret=secret)).status == 200
    assert [row.key_id for row in served.rows()] == ["new", "old"]


def test_a_delivery_for_one_account_is_not_authentic_at_another(served: Served) -> None:
    """Each account has keys of its own."""
    assert served.post(event("sg"), "/webhooks/bk").status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_unknown_account_is_answered_404(served: Served, method: str) -> None:
    """Probes and deliveries alike."""
    answer = served.request(method, "/webhooks/nobody", b"{}" if method == "POST" else None)
    assert answer.status == 404
    if method != "HEAD":
        assert (answer.error["type"], answer.error["code"]) == ("not_found_error", "unknown_account")


@every_account
def test_a_probe_is_answered_200(served: Served, account: str) -> None:
    """Providers look at a URL before they register it; nothing is recorded of that."""
    seen, head = served.request("GET", f"/webhooks/{account}"), served.request("HEAD", f"/webhooks/{account}")
    assert (200, {"account": account, "ready": True}) == (seen.status, seen.json())
    assert (200, b"", seen.headers["content-length"]) == (head.status, head.body, head.headers["content-length"])
    assert served.rows() == []


def test_a_challenge_is_answered_with_its_signature(tmp_path: Path) -> None:
    """Braintree sees by it that the URL has the key; what is no challenge is a probe like any other."""
    account = {
        "provider": "braintree",
        "secrets": {"private_key": "plain:integration_private_key"},
        "webhook_keys": [{"id": "k", "secret": "plain:integration_private_key"}],
        "options": {"merchant_id": "merchant1", "public_key": "integration_public_key"},
    }
    asked = "20f9f8ed05f77439fe955c977e4c8a53"
    key = hashlib.sha1(b"integration_private_key").digest()  # noqa: S324 - as Braintree makes it
    signature = hmac.digest(key, asked.encode(), "sha1").hex()
    with serving(settings(tmp_path, sections={"accounts": {"bt": account}})) as served:
        answer = served.request("GET", f"/webhooks/bt?bt_challenge={asked}")
        head = served.request("HEAD", f"/webhooks/bt?bt_challenge={asked}")
        probes = [
            served.request("GET", f"/webhooks/{path}")
            for path in ("bt", "bt?bt_challenge=%3Cb%3E", f"bt?bt_challenge={asked.upper()}", f"bt?{'a=1&' * 50}b")
        ]
        rows = served.rows()
    assert (answer.status, answer.body.decode()) == (200, f"integration_public_key|{signature}")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (head.status, head.body) == (200, b"")
    assert [probe.json() for probe in probes] == [{"account": "bt", "ready": True}] * 4
    assert rows == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/webhooks/sg", "/callbacks/x", "/return/x"])
def test_another_method_is_answered_405(served: Served, method: str, path: str) -> None:
    """With the methods that there are, in the error shape."""
    answer = served.request(method, path, b"{}")
    assert (
        answer.status,
        answer.error["type"],
        answer.error["code"],
    ) == (405, "invalid_request_error", "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["/nothing", "/webhooks", "/webhooks/", "/webhooks/sg/", "/webhooks/sg/more"])
def test_an_unknown_path_is_answered_404_and_never_redirected(served: Served, path: str) -> None:
    """A provider does not follow a redirect, or follows it without the body."""
    for method in ("GET", "POST"):
        answer = served.request(method, path, b"{}" if method == "POST" else None)
        assert (answer.status, answer.error["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("", None),
        ("?kind=payout", "payout"),
        ("?from=registration&kind=payout&v=1", "payout"),
        ("?kind=dance", None),
        ("?kind=", None),
        ("?kind=payin&kind=payout", "payin"),
        ("?kind=%00%ff", None),
        ("?" + "&".join(f"x{i}=1" for i in range(15)), None),
    ],
)
def test_a_query_tells_kinds_apart_that_share_a_body(served: Served, query: str, kind: str | None) -> None:
    """`kind=` counts wherever it stands in the query; a kind that the provider does not have counts for nothing."""
    assert served.post(event("pf"), f"/webhooks/pf{query}").status == 200
    assert [kind] == [row.kind for row in served.rows()]


def test_a_query_of_many_fields_is_no_bug(served: Served) -> None:
    """Whatever stands in the query, an authentic delivery is recorded."""
    query = "&".join(f"x{i}=1" for i in range(500))
    assert served.post(event("pf"), f"/webhooks/pf?{query}").status == 200


def test_the_quarantine_is_bounded(tmp_path: Path) -> None:
    """The newest stay, so that a flood does not fill the disk."""
    with serving(settings(tmp_path, quarantine_per_account=3)) as running:
        for number in range(6):
            running.post(sign("sg", b"%d" % number, secret="the-key-of-somebody-else"))
        running.post(sign("bk", b"other", secret="the-key-of-somebody-else"))
        assert [kept.body for kept in running.rejected("sg")] == [b"3", b"4", b"5"]
        assert [kept.body for kept in running.rejected("bk")] == [b"other"]


def test_no_secret_reaches_the_log(served: Served) -> None:
    """Neither signature, token, authorization nor body appears in what is logged of any answer."""
    marked = "body-content-that-nobody-may-see"
    deliveries = [sign(account, f'{{"x": "{marked}"}}'.encode()) for account in PROVIDERS]
    deliveries += [sign(account, marked.encode(), secret="wrong-key-wrong-key") for account in PROVIDERS]
    token = served.service.tokens.issue("callback", served.payment())
    with capture_logs() as logged:
        for delivery in deliveries:
            served.post(delivery)
        served.post(deliveries[1], f"/callbacks/{token}")
        served.post(deliveries[1], f"/callbacks/{token}x")
    text = json.dumps(logged, default=str)
    assert {"delivery.recorded", "delivery.rejected"} <= {entry["event"] for entry in logged}
    values = [value for d in deliveries for name, value in d.headers if name not in ("Content-Type", "User-Agent")]
    stamps = [value for value in values if len(value) < 30]  # a time is no secret
    secrets = [marked, token, *KEYS.values(), *(value for value in values if value not in stamps)]
    secrets += [value.partition(".")[2] for value in values if value.partition(".")[2]]
    assert [secret for secret in secrets if secret in text] == []
