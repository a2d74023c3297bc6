"""The quarantine, and redeeming what was refused under a wrong key."""

import json
import time
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from providers.signing import hmac_sha256
from receipted.app import create_app
from receipted.cli.exits import Exit
from storage import inbox

GOOD = {"stable": "whsec_sandbox_signing_0001", "alternative": "ap_webhook_secret_sandbox_0001"}
WRONG = "another-key-of-enough-bytes"


def signed(account, body):
    if account == "alternative":
        return {"authorization": f"Bearer {GOOD[account]}"}
    stamp = str(int(time.time()))
    digest = hmac_sha256(GOOD[account].encode(), stamp.encode() + b".", body).hex()
    return {"x-stablegenius-timestamp": stamp, "x-stablegenius-signature": f"sha256={digest}"}


def refuse_one(shell, account, number=1, **headers):
    """Deliver something authentic to a service that has the wrong key."""
    body = json.dumps({"id": f"evt_{number}", "type": "payment_intent.confirmed"}).encode()
    service = shell.service()
    with TestClient(create_app(service, with_work=False), "https://receipted.test") as client:
        answer = client.post(f"/webhooks/{account}", content=body, headers=signed(account, body) | headers)
    assert answer.status_code == 401
    service.close()


def change_key(shell, account, *, to_wrong):
    old, new = (GOOD[account], WRONG) if to_wrong else (WRONG, GOOD[account])
    path = Path(shell.config)
    path.write_text(path.read_text().replace(f"plain:{old}", f"plain:{new}"))


@pytest.mark.parametrize("account", ["stable", "alternative"])
def test_a_mended_key_redeems_what_was_refused(shell, account):
    """What verifies under the mended key is in the inbox as of when it came, and not in quarantine any more."""
    change_key(shell, account, to_wrong=True)
    refuse_one(shell, account, 1)
    refuse_one(shell, account, 2)
    kept = shell("rejected", "list", account, "--json").json
    assert [one["reason"] for one in kept] == ["signature_wrong"] * 2
    assert "body" not in kept[0]

    still = shell("rejected", "redeem", account, "--json").json
    assert still == {"redeemed": [], "duplicates": 0, "rejected": {"signature_wrong": 2}}

    change_key(shell, account, to_wrong=False)
    redeemed = shell("rejected", "redeem", account, "--by", "Ada L.", "--json").json

    assert (len(redeemed["redeemed"]), redeemed["rejected"]) == (2, {})
    assert shell("rejected", "list", account, "--json").json == []
    messages = shell("inbox", "list", "--oldest", "--json").json
    assert [one["id"] for one in messages] == redeemed["redeemed"]
    assert [one["received_at"] for one in messages] == [one["received_at"] for one in kept[::-1]]
    assert {one["key_id"] for one in messages} == {"sandbox"}
    shell("inbox", "replay", *redeemed["redeemed"], "--by", "Ada L.", "--reason", "a test")
    report = shell("audit", "verify", "--json").json
    assert (report["ok"], report["signatures"]) == (True, 2)


def test_what_came_again_meanwhile_is_no_second_message(shell):
    """A refused delivery that the provider has sent again is counted as its redelivery."""
    change_key(shell, "stable", to_wrong=True)
    refuse_one(shell, "stable")
    refuse_one(shell, "stable")
    change_key(shell, "stable", to_wrong=False)

    assert "2 redeemed, of which 1 had come again" in shell("rejected", "redeem", "stable").out
    assert [one["redeliveries"] for one in shell("inbox", "list", "--json").json] == [1]


def test_the_quarantine_is_of_one_account(shell):
    """Another account's rejections are neither listed nor redeemed."""
    change_key(shell, "stable", to_wrong=True)
    refuse_one(shell, "stable")

    assert shell("rejected", "list", "banked", "--json").json == []
    assert "0 redeemed" in shell("rejected", "redeem", "banked").out
    assert "signature_wrong" in shell("rejected", "list", "stable").out
    shell("rejected", "redeem", "nobody", code=Exit.NOT_FOUND)


@pytest.mark.parametrize("account", ["stable", "alternative"])
def test_what_was_kept_as_a_digest_is_redeemed_as_that_digest(shell, account):
    """A digest of a digest would be that of no header that ever came."""
    change_key(shell, account, to_wrong=True)
    refuse_one(shell, account, cookie="session=1")
    change_key(shell, account, to_wrong=False)
    (redeemed,) = shell("rejected", "redeem", account, "--by", "Ada L.", "--json").json["redeemed"]
    service = shell.service()
    with service.database.read() as unit:
        headers = dict(inbox.get(unit, redeemed).headers)
    service.close()
    assert headers["cookie"] == f"sha256={sha256(b'session=1').hexdigest()}"
    if account == "alternative":
        bearer = signed(account, b"")["authorization"].encode()
        assert headers["authorization"] == f"sha256={sha256(bearer).hexdigest()}"
