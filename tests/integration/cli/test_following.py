"""What `receipted tail` and `receipted listen` print while things happen."""

import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from providers import trial
from receipted.doctor.trial_delivery import active_key, sign
from tests.support.processes import SECONDS, started
from tests.support.waiting import until


@pytest.fixture
def busy(empty, tmp_path):
    """A service, and a way to deliver to it."""
    config = ("--config", str(empty.config))
    with started(*config, "serve", "--migrate", "--json", errors=tmp_path / "errors") as process:
        url = process.json()["url"]
        service = empty.service()

        def deliver(account, body, *, is_forged=False):
            wired, now = service.accounts[account], service.clock()
            headers = sign(wired, active_key(wired, now), b"other" if is_forged else body, now)
            return httpx2.post(f"{url}/webhooks/{account}", content=body, headers=headers).status_code

        yield empty, deliver
        service.close()


def lines(typed):
    return [json.loads(line) for line in typed.out.splitlines()]


def settled(shell, account, count):
    def done():
        found = shell("inbox", "list", "--account", account, "--json").json
        return len(found) == count and all(message["status"] != "pending" for message in found)

    until(done, SECONDS, lambda: "messages that are decided")


def test_tail_tells_each_thing_once_and_in_order(busy):
    shell, deliver = busy
    assert deliver("stable", trial.body("one")) == 200
    settled(shell, "stable", 1)
    assert deliver("payfield", trial.body("two"), is_forged=True) == 401

    told = lines(shell("tail", "--since", "3600", "--count", "3", "--json"))

    assert [(each["event"], each["account"]) for each in told] == [
        ("received", "stable"),
        ("decided", "stable"),
        ("rejected", "payfield"),
    ]
    assert told[0]["id"] == told[1]["id"]
    assert [each["at"] for each in told] == sorted(each["at"] for each in told)
    assert not any({"body", "headers"} & set(each) for each in told), "a payload is printed that nobody asked for"


def test_tail_hears_what_comes_after_it_began(busy, tmp_path):
    shell, deliver = busy
    config = ("--config", str(shell.config))
    with started(*config, "tail", "--json", "--since", "3600", "--count", "4", errors=tmp_path / "tail") as process:
        assert deliver("stable", trial.body("first")) == 200
        first = process.json()
        assert deliver("banked", trial.body("second")) == 200
        rest = [process.json() for _ in range(3)]
        code = process.child.wait(SECONDS)

    assert first["event"] == "received"
    assert code == 0
    assert sorted((each["event"], each["account"]) for each in [first, *rest]) == [
        ("decided", "banked"),
        ("decided", "stable"),
        ("received", "banked"),
        ("received", "stable"),
    ]


def test_listen_prints_one_account_and_bodies_on_request(busy):
    shell, deliver = busy
    assert deliver("stable", trial.body("quiet")) == 200
    assert deliver("banked", trial.body("loud")) == 200
    assert deliver("banked", trial.body("forged"), is_forged=True) == 401
    settled(shell, "banked", 1)

    plain = shell("listen", "banked", "--since", "3600", "--count", "3")
    full = shell("listen", "banked", "--since", "3600", "--count", "3", "--bodies")

    assert plain.out.count("banked") == 3
    assert "webhook" in plain.out
    assert "key " in plain.out
    assert "decided" in plain.out
    assert "signature_wrong" in plain.out
    assert "receipted_trial" not in plain.out
    assert '"loud"' in full.out
    assert "quiet" not in full.out


def test_an_unknown_account_is_an_error(shell):
    assert "no account 'nobody'" in shell("listen", "nobody", code=5).err


def test_a_payment_that_is_created_is_told_with_its_first_move(at_sandbox):
    args = ("--amount", "5", "--currency", "USD", "--reference", "order 1")
    at_sandbox("payments", "create", "stable", *args)

    told = lines(at_sandbox("tail", "--since", "3600", "--count", "5", "--json"))

    kinds = [each["event"] for each in told]
    assert sorted(kinds) == ["decided", "decided", "moved", "received", "received"]
    moved = told[kinds.index("moved")]
    assert (moved["number"], moved["from_state"], moved["to_state"]) == (1, None, "awaiting_payment")


@pytest.mark.parametrize(
    ("words", "number", "suggested"),
    [
        ("receipted pay", 1, ["payments"]),
        ("receipted payments ca", 2, ["cancel", "capture"]),
        ("receipted listen --bo", 2, ["--bodies"]),
    ],
)
def test_a_shell_completes_commands(words, number, suggested):
    """As bash asks for it, by the environment."""
    asked = {"_RECEIPTED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    receipted = Path(sys.executable).with_name("receipted")

    answer = subprocess.run([receipted], env=asked, capture_output=True, text=True, timeout=SECONDS, check=True)

    assert answer.stdout.split() == suggested
