"""The feed of effects as a terminal reads it: on from any number, each once."""

import pytest

from receipted.cli.exits import Exit

from .test_inbox_outbox import refused_create


@pytest.fixture
def fed(shell):
    """Two payments whose failures are owed."""
    return shell, refused_create(shell, "order 1"), refused_create(shell, "order 2")


def test_the_feed_is_read_on_from_a_number(fed):
    """The oldest first; `next` passes over nothing, and what was had does not come again."""
    shell, first, second = fed
    start = shell("events", "--limit", "1", "--json").json
    rest = shell("events", "--after", start["next"], "--json").json
    (last,) = rest["data"]

    assert [(one["type"], one["payment"]) for one in start["data"]] == [("payment.failed", first["id"])]
    assert (last["id"].split("-")[0], last["payment"]) == ("2", second["id"])
    assert (start["next"], start["has_more"]) == (start["data"][0]["id"], True)
    assert (rest["next"], rest["has_more"]) == (last["id"], False)
    assert rest["data"][0]["data"]["reference"] == "order 2"
    end = {"data": [], "has_more": False, "next": last["id"]}
    assert shell("events", "--after", last["id"], "--json").json == end
    assert f"receipted events --after {last['id']}" in shell("events").err
    assert first["id"][-12:] in shell("events").out


def test_the_feed_is_narrowed(fed):
    """By payment, account and effect; `next` still goes to the feed's end."""
    shell, _, second = fed

    found = shell("events", "--payment", second["id"][-12:], "--json").json
    assert [one["id"] for one in found["data"]] == [found["next"]]
    assert shell("events", "--effect", "payment.paid", "--json").json["data"] == []
    assert len(shell("events", "--account", "alternative", "--json").json["data"]) == 2
    shell("events", "--account", "nobody", code=Exit.NOT_FOUND)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ("3-0123456789ab", "the feed ends at 2"),
        ("2-0123456789ab", "at 2 it is not the feed that was read"),
        ("2", "at 2 it is not the feed that was read"),
    ],
)
def test_a_place_that_the_feed_does_not_hold_is_refused(fed, after, why):
    """The database is older than what was read of it: nobody goes on as if nothing were missing."""
    shell, *_ = fed

    assert why in shell("events", "--after", after, code=Exit.FAILED).err
    shell("events", "--after", "the end", code=Exit.USAGE)


def test_whoever_waits_is_told_at_once_of_what_is_there(fed):
    """Waiting is for where there is nothing."""
    shell, *_ = fed

    found = shell("events", "--wait", "3600", "--json").json
    assert len(found["data"]) == 2
    assert shell("events", "--after", found["next"], "--wait", "0.01", "--json").json["data"] == []
