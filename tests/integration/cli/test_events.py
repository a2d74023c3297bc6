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
    rest = shell("events", "--after", str(start["next"]), "--json").json

    assert [(one["type"], one["payment"]) for one in start["data"]] == [("payment.failed", first["id"])]
    assert [(one["id"], one["payment"]) for one in rest["data"]] == [("2", second["id"])]
    assert (start["has_more"], rest["has_more"], rest["next"]) == (True, False, 2)
    assert rest["data"][0]["data"]["reference"] == "order 2"
    assert shell("events", "--after", "2", "--json").json == {"data": [], "has_more": False, "next": 2}
    assert "receipted events --after 2" in shell("events").err
    assert first["id"][-12:] in shell("events").out


def test_the_feed_is_narrowed(fed):
    """By payment, account and effect; `next` still goes to the feed's end."""
    shell, _, second = fed

    found = shell("events", "--payment", second["id"][-12:], "--json").json
    assert ([one["id"] for one in found["data"]], found["next"]) == (["2"], 2)
    assert shell("events", "--effect", "payment.paid", "--json").json["data"] == []
    assert len(shell("events", "--account", "alternative", "--json").json["data"]) == 2
    shell("events", "--account", "nobody", code=Exit.NOT_FOUND)


def test_a_number_that_the_feed_has_not_reached_is_refused(fed):
    """The database is older than what was read of it: nobody goes on as if nothing were missing."""
    shell, *_ = fed

    assert "the feed ends at 2" in shell("events", "--after", "3", code=Exit.FAILED).err


def test_whoever_waits_is_told_at_once_of_what_is_there(fed):
    """Waiting is for where there is nothing."""
    shell, *_ = fed

    assert len(shell("events", "--wait", "3600", "--json").json["data"]) == 2
    assert shell("events", "--after", "2", "--wait", "0.01", "--json").json["data"] == []
