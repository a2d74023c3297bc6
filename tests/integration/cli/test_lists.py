"""Lists as operators narrow them: by whatever the API and the console go by, in either order, page by page."""

import csv
import io

import pytest
from sqlalchemy import update

from receipted.cli.exits import Exit
from storage import search
from storage.columns import table_of
from storage.tables import Payment
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.rows import a_rejection, an_effect

from .test_inbox_outbox import WHO, kill_everything_owed, refused_create, webhook
from .test_rejected import change_key, refuse_one


@pytest.fixture
def shell(on_both):
    """On either database."""
    return on_both


def decided(shell, *decisions):
    """Messages of these decisions, in order; their ids."""
    messages = [a_message(account="stable") for _ in decisions]
    for message, decision in zip(messages, decisions, strict=True):
        message.status, message.decision = "decided", decision
    shell.write(*messages)
    return [message.id for message in messages]


def ids(typed):
    return [row["id"] for row in typed.json]


def test_messages_of_a_rare_decision_are_found_among_many(shell, monkeypatch):
    """However many others are looked through, the list goes on until it has as many as were wanted."""
    monkeypatch.setattr(search, "SCAN_LIMIT", 3)
    found = decided(shell, "conflict", *["advanced"] * 7, "conflict", "advanced", "stale")

    assert ids(shell("inbox", "list", "--decision", "conflict", "--json")) == [found[8], found[0]]
    assert ids(shell("inbox", "list", "--decision", "conflict", "--oldest", "--json")) == [found[0], found[8]]
    assert ids(shell("inbox", "list", "--decision", "conflict", "--limit", "1", "--json")) == [found[8]]
    assert ids(shell("inbox", "list", "--decision", "conflict", "--after", found[8], "--json")) == [found[0]]
    assert ids(shell("inbox", "list", "--decision", "stale", "--oldest", "--json")) == [found[10]]
    assert ids(shell("inbox", "list", "--decision", "noted", "--json")) == []


def test_messages_are_found_by_payment_key_and_time(shell):
    """By a part of the payment's id, by the whole delivery key, and by when they came."""
    payment = refused_create(shell)
    other = webhook(shell)
    about = [message["id"] for message in shell("inbox", "list", "--payment", payment["id"][-12:], "--json").json]

    assert len(about) == 2
    assert other not in about
    assert ids(shell("inbox", "list", "--search", "evt_1", "--json")) == [other]
    assert ids(shell("inbox", "list", "--search", "evt_2", "--json")) == []
    assert ids(shell("inbox", "list", "--since", "1h", "--json")) == [other, *about]
    assert ids(shell("inbox", "list", "--before", "1h", "--json")) == []
    shell("inbox", "list", "--since", "soon", code=Exit.USAGE)


def test_the_exact_bytes_of_a_message_are_written_to_a_file_of_ones_own(shell, tmp_path):
    """Nobody else may read it."""
    body, target = b'{"of": "a person"}\x00\xff', tmp_path / "body"
    found = webhook(shell, body)

    typed = shell("inbox", "show", found, "--output", str(target))

    assert target.read_bytes() == body
    assert target.stat().st_mode & 0o077 == 0
    assert "of a person" not in typed.out
    assert f"{len(body)} bytes are in" in typed.err


def test_payments_are_narrowed_as_the_api_narrows_them(shell):
    """By kind, the provider's name, currency and amount, review, and when they came to be or changed."""
    small = a_payment(account="stable", amount_minor=999, currency="USD", provider_ref="pi_1")
    large = a_payment(account="stable", amount_minor=1_000, currency="USD", provider_ref="pi_2", review="conflict")
    other = a_payment(account="banked", kind="payout", amount_minor=5_000, currency="GBP", reference="order 7")
    shell.write(small, large, other)

    def listed(*args):
        return ids(shell("payments", "list", *args, "--json"))

    assert listed("--currency", "usd", "--amount-from", "10.00") == [large.id]
    assert listed("--currency", "USD", "--amount-to", "9.99") == [small.id]
    assert listed("--provider-ref", "pi_2") == listed("--why", "conflict") == listed("--review") == [large.id]
    assert listed("--no-review") == [other.id, small.id]
    assert listed("--kind", "payout") == listed("--search", "order 7") == [other.id]
    assert listed("--limit", "2") == [other.id, large.id]
    assert listed("--after", large.id) == [small.id]
    assert listed("--oldest", "--after", small.id, "--limit", "1") == [large.id]
    assert listed("--since", "2026-04-01", "--before", "2026-04-02") == [other.id, large.id, small.id]
    assert listed("--changed-before", "2026-04-01") == []
    assert "needs --currency" in shell("payments", "list", "--amount-from", "1", code=Exit.USAGE).err
    shell("payments", "list", "--after", "0" * 12, code=Exit.NOT_FOUND)


def test_the_moves_of_a_payment_are_told_with_their_hashes(shell):
    """In order, each with who said so and why."""
    payment = refused_create(shell)

    (move,) = shell("payments", "transitions", payment["id"], "--json").json
    shown = shell("payments", "transitions", payment["id"][-12:]).out

    assert (move["number"], move["to_state"], move["hash"]) == (1, payment["state"], payment["head_hash"])
    assert move["hash"] in shown


def test_an_effect_is_shown_with_every_attempt_and_what_is_sent_only_on_request(shell):
    """Also how each attempt ended."""
    refused_create(shell)
    (owed,) = kill_everything_owed(shell)

    plain, data = shell("outbox", "show", owed[-12:]), shell("outbox", "show", owed, "--json").json

    assert "500" in plain.out
    assert "payload" not in plain.out
    assert [attempt["duration_ms"] for attempt in data["delivery_attempts"]] == [7]
    assert "payload" not in data
    assert '"type":"payment.failed"' in shell("outbox", "show", owed, "--payload").out


def test_dead_effects_of_an_account_or_of_one_kind_are_redriven(shell):
    """Those of others stay dead; what would redrive everything without saying so is refused."""
    dead = {"status": "dead"}
    one, two = an_effect(account="stable", **dead), an_effect(account="banked", effect="payment.failed", **dead)
    shell.write(one, two)

    assert ids(shell("outbox", "list", "--effect", "payment.failed", "--json")) == [two.id]
    assert ids(shell("outbox", "list", "--account", "stable", "--status", "dead", "--json")) == [one.id]
    assert ids(shell("outbox", "redrive", "--all-dead", "--account", "stable", *WHO, "--json")) == [one.id]
    assert ids(shell("outbox", "list", "--status", "dead", "--json")) == [two.id]
    assert ids(shell("outbox", "redrive", "--all-dead", "--effect", "payment.failed", *WHO, "--json")) == [two.id]
    shell("outbox", "redrive", "--all-dead", *WHO, code=Exit.USAGE)
    shell("outbox", "redrive", one.id, "--account", "stable", *WHO, code=Exit.USAGE)


def test_the_quarantine_of_every_account_is_listed_and_one_delivery_shown(shell, tmp_path):
    """By reason too; the bytes of whoever sent them only on request, and unable to steer the terminal."""
    first = a_rejection(account="stable", reason="signature_wrong", body=b"\x1b[2Jforged", headers=[["via", "x"]])
    second = a_rejection(account="banked", reason="timestamp_stale", at=START.replace(hour=11))
    shell.write(first, second)
    target = tmp_path / "body"

    assert ids(shell("rejected", "list", "--json")) == [second.id, first.id]
    assert ids(shell("rejected", "list", "--oldest", "--json")) == [first.id, second.id]
    assert ids(shell("rejected", "list", "--reason", "timestamp_stale", "--json")) == [second.id]
    plain, whole = shell("rejected", "show", first.id[-12:]), shell("rejected", "show", first.id, "--body")
    assert "forged" not in plain.out + shell("rejected", "show", first.id, "--json").out
    assert "forged" in whole.out
    assert "\x1b" not in whole.out
    assert "anybody may have sent it" in whole.err
    shell("rejected", "show", first.id, "--output", str(target))
    assert target.read_bytes() == b"\x1b[2Jforged"


def test_one_delivery_is_redeemed_and_the_others_stay(shell):
    """What is not the account's is refused, and nothing is redeemed then."""
    change_key(shell, "stable", to_wrong=True)
    refuse_one(shell, "stable", 1)
    refuse_one(shell, "stable", 2)
    change_key(shell, "stable", to_wrong=False)
    first, second = ids(shell("rejected", "list", "--json"))

    shell("rejected", "redeem", "banked", "--only", first, code=Exit.NOT_FOUND)
    redeemed = shell("rejected", "redeem", "stable", "--only", second[-12:], "--json").json

    assert len(redeemed["redeemed"]) == 1
    assert ids(shell("rejected", "list", "--json")) == [first]


def test_what_people_did_is_listed_with_who_what_why_and_when(shell):
    """The newest first; by person, action, what it was about, and time."""
    shell("keys", "add", "shop", "--test", "--scope", "read", "--by", "root")
    payment = refused_create(shell)
    resolve = ("--state", "expired", "--reason", "the bank\x1b[2J says so", "--by", "Ada L.")
    shell("payments", "resolve", payment["id"], *resolve)
    resolved, added = shell("actions", "--json").json

    assert (resolved["actor"], resolved["action"], resolved["subject"]) == ("Ada L.", "resolve", payment["id"])
    assert (added["actor"], added["action"], added["account"]) == ("root", "add key", None)
    shown = shell("actions").out
    assert "the bank" in shown
    assert "\x1b" not in shown
    assert payment["id"][-12:] in shown
    for args in (["--by", "Ada L."], ["--action", "resolve"], ["--account", "alternative"], ["--limit", "1"]):
        assert ids(shell("actions", *args, "--json")) == [resolved["id"]]
    for about in (payment["id"], payment["id"][-12:]):
        assert ids(shell("actions", "--about", about, "--json")) == [resolved["id"]]
    assert ids(shell("actions", "--about", added["subject"], "--json")) == [added["id"]]
    assert ids(shell("actions", "--after", resolved["id"][-12:], "--json")) == [added["id"]]
    assert ids(shell("actions", "--oldest", "--json")) == [added["id"], resolved["id"]]
    assert ids(shell("actions", "--since", "1h", "--before", "2020-01-01", "--json")) == []
    shell("actions", "--about", "0" * 12, code=Exit.NOT_FOUND)
    shell("actions", "--account", "nobody", code=Exit.NOT_FOUND)


def test_whoever_asks_a_provider_by_name_is_kept_whatever_comes_of_it(shell):
    """The provider is away; without a name it is as it was, and a reason alone is nobody's."""
    payment = a_payment(account="stable", provider_ref="pi_1", phase="open", state="awaiting_payment")
    shell.write(payment)

    shell("payments", "refresh", payment.id, code=Exit.FAILED)
    shell("payments", "refresh", payment.id, "--by", "Ada L.", code=Exit.FAILED)
    shell("payments", "cancel", payment.id, *WHO, code=Exit.FAILED)
    shell("payments", "cancel", payment.id, "--reason", "a test", code=Exit.USAGE)

    told = [(one["action"], one["actor"], one["reason"], one["account"]) for one in shell("actions", "--json").json]
    assert told == [
        ("cancel", "Ada L.", "a test", "stable"),
        ("refresh", "Ada L.", "asked for on the command line", "stable"),
    ]


def test_reconciliations_are_narrowed_by_status(at_sandbox):
    """As the console narrows them."""
    at_sandbox("reconcile", "stable", "--since", "1d")

    assert len(at_sandbox("reconciliations", "list", "--status", "done", "--json").json) == 1
    assert at_sandbox("reconciliations", "list", "--status", "failed", "--json").json == []
    assert at_sandbox("reconciliations", "list", "--before", "2020-01-01", "--json").json == []


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@x"])
def test_a_list_for_a_spreadsheet_holds_no_formula(shell, formula):
    """CSV has what JSON has; a text that would be calculated has an apostrophe before it."""
    payment = a_payment(account="stable", amount_minor=-5, reference="order 1")
    shell.write(payment)
    service = shell.service()
    with service.database.write() as unit:
        unit.execute(update(table_of(Payment)).values(reference=formula))
    service.close()

    typed = shell("payments", "list", "--csv")
    (row,) = csv.DictReader(io.StringIO(typed.out))
    (data,) = shell("payments", "list", "--json").json

    assert list(row) == list(data)
    assert row["reference"].startswith("'")
    assert row["reference"].endswith(formula.strip())
    assert (row["id"], row["amount_minor"], row["created_at"]) == (payment.id, "-5", data["created_at"])
    assert shell("payments", "list", "--phase", "failed", "--csv").out == ""
    shell("payments", "list", "--csv", "--json", code=Exit.USAGE)


def test_a_list_that_is_cut_says_how_to_go_on(shell):
    """Beside the answer, so that what reads the answer is not disturbed."""
    found = decided(shell, "advanced", "advanced")

    for form in ((), ("--csv",)):
        assert f"--after {found[1]}" in shell("inbox", "list", "--limit", "1", *form).err
    assert shell("inbox", "list", "--limit", "3").err == ""
