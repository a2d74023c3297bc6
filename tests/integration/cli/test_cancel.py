"""What a person or a script is told of a cancel: words on stderr, the payment on stdout, an exit code to build on."""

import pytest

from receipted.cli.exits import Exit
from tests.support.at_the_sandbox import act

from .test_payments import PROVIDERS, create


def do(sandbox_url, account, payment, action):
    act(sandbox_url, PROVIDERS[account][0], payment["kind"], payment["provider_ref"], action)


def test_a_cancelled_payment_is_shown_and_nothing_more_is_said(at_sandbox):
    """Exit code 0; a repeat says the same."""
    payment = create(at_sandbox, "stable", "--json").json

    for _ in range(2):
        typed = at_sandbox("payments", "cancel", payment["id"])
        assert typed.err == ""
        assert "phase                 cancelled" in typed.out


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ("stable", "note: it has expired, so there is nothing left to cancel (state expired)\n"),
        ("banked", "note: it has ended without money (state failed, "),
    ],
)
def test_no_money_will_come_is_what_a_script_wants_to_know(at_sandbox, sandbox_url, account, words):
    """What has ended without money is as good as cancelled: exit code 0, and a note."""
    payment = create(at_sandbox, account, "--json").json
    do(sandbox_url, account, payment, "expire")

    typed = at_sandbox("payments", "cancel", payment["id"], "--json")

    assert typed.err.startswith(words)
    assert typed.json["id"] == payment["id"]


def test_a_payment_that_goes_on_is_no_success(at_sandbox, sandbox_url):
    """The payer is at the bank: exit code 1, in words and in the payment's phase."""
    payment = create(at_sandbox, "banked", "--json").json
    for _ in range(2):
        do(sandbox_url, "banked", payment, "step")

    typed = at_sandbox("payments", "cancel", payment["id"], "--json", code=Exit.FAILED)

    assert typed.err.startswith("error: not cancelled: the payer has done their part")
    assert typed.json["phase"] == "processing"


def test_a_conflict_is_not_taken_for_an_end(at_sandbox):
    """A person said that it had expired, the provider says that it was cancelled: a person must look again."""
    payment = create(at_sandbox, "stable", "--json").json
    at_sandbox("payments", "cancel", payment["id"])
    args = ("--state", "expired", "--reason", "a test", "--by", "Ada L.")
    at_sandbox("payments", "resolve", payment["id"], *args)
    at_sandbox("payments", "refresh", payment["id"])  # the provider has it as cancelled

    typed = at_sandbox("payments", "cancel", payment["id"], code=Exit.FAILED)

    assert typed.err.startswith("error: a person must look: conflict, cancelled cannot follow expired")


def test_an_outage_is_told_as_one(at_sandbox, tmp_path):
    """The provider cannot be asked first, so nothing was sent; with --json the error shape says so."""
    payment = create(at_sandbox, "stable", "--json").json
    file = tmp_path / "receipted.toml"
    text = file.read_text()
    url = text.partition('provider = "stable_genius"\nbase_url = "')[2].partition('"')[0]
    file.write_text(text.replace(url, "http://127.0.0.1:9/stable-genius/v1"))

    typed = at_sandbox("payments", "cancel", payment["id"], "--json", code=Exit.FAILED)

    assert typed.json["error"]["code"] == "cancel_not_sent"
    assert "nothing was cancelled" in typed.json["error"]["message"]
    story = at_sandbox("payments", "show", payment["id"], "--json").json
    assert [message["source"] for message in story["inbox_messages"]] == ["merchant", "create"]


@pytest.mark.parametrize("account", ["alternative", "payfield", "payfield-old"])
def test_a_provider_without_such_a_call_is_not_asked_either(at_sandbox, account):
    """No question is spent on it."""
    payment = create(at_sandbox, account, "--json").json

    typed = at_sandbox("payments", "cancel", payment["id"], "--json", code=Exit.FAILED)

    assert typed.json["error"]["code"] == "unsupported_by_provider"
    assert at_sandbox("payments", "show", payment["id"], "--json").json["payment"]["asked_at"] is None
