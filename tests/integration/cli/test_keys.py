"""`receipted keys`: made once, listed without what opens anything, rotated with an overlap, revoked."""

from datetime import datetime, timedelta

import pytest

from storage import operator_actions


def add(shell, *more):
    """A new key, as JSON."""
    return shell("keys", "add", "shop", "--test", "--scope", "read", "--by", "Ada L.", *more, "--json").json


def test_a_key_is_shown_once_and_listed_without_its_secret(shell):
    typed = shell("keys", "add", "shop", "--test", "--scope", "write", "--scope", "read", "--by", "Ada L.")
    key = typed.out.strip()

    assert key.startswith("rk_test_")
    assert "not shown again" in typed.err
    listed = shell("keys", "list").out
    assert key[:14] in listed
    assert key[14:] not in listed + shell("keys", "list", "--json").out
    (kept,) = shell("keys", "list", "--json").json
    assert (kept["name"], kept["environment"], kept["scopes"]) == ("shop", "test", ["read", "write"])
    assert "digest" not in kept


def test_a_key_is_live_or_test_by_word(shell):
    assert "--live or --test" in shell("keys", "add", "n", "--scope", "read", "--by", "A", code=2).err
    assert add(shell)["environment"] == "test"
    live = shell("keys", "add", "n", "--live", "--scope", "read", "--by", "A", "--json").json
    assert live["key"].startswith("rk_live_")


def test_a_key_may_end_by_itself(shell):
    made = add(shell, "--expires", "90d")
    span = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])

    assert span == timedelta(days=90)
    assert (
        "takes a span"
        in shell("keys", "add", "n", "--test", "--scope", "read", "--by", "A", "--expires", "x", code=2).err
    )


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_a_key_has_a_name(shell, name):
    assert shell("keys", "add", name, "--test", "--scope", "read", "--by", "A", code=2).out == ""


def test_rotating_gives_a_new_key_and_ends_the_old_one_after_the_overlap(shell):
    old = add(shell)
    new = shell("keys", "rotate", old["id"][-12:], "--overlap", "2d", "--by", "Ada L.", "--json").json
    listed = {key["id"]: key for key in shell("keys", "list", "--json").json}

    assert new["key"] != old["key"]
    assert (new["name"], new["scopes"]) == ("shop", ["read"])
    assert listed[old["id"]]["replaced_by"] == new["id"]
    left = datetime.fromisoformat(listed[old["id"]]["expires_at"]) - datetime.fromisoformat(new["created_at"])
    assert left == timedelta(days=2)


def test_revoking_ends_a_key_and_says_who_did_it(shell):
    key = add(shell)
    said = shell("keys", "revoke", key["id"], "--by", "Ada L.", "--reason", "it was in a log")
    assert "is revoked" in said.out
    assert "revoked" in shell("keys", "list").out
    assert "good no more" in shell("keys", "rotate", key["id"], "--by", "Ada L.", code=2).err
    service = shell.service()
    with service.database.read() as unit:
        done = [
            (action.action, action.actor, action.reason) for action in operator_actions.of_subjects(unit, [key["id"]])
        ]
    service.close()

    assert done == [("add key", "Ada L.", "scopes read"), ("revoke key", "Ada L.", "it was in a log")]
