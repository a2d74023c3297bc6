"""What came and what is owed, as an operator lists, shows, replays and redrives it."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, update

from receipted.cli.exits import Exit
from storage import inbox, outbox
from storage.columns import table_of
from storage.tables import DeliveryAttempt, InboxMessage, OutboxDeliveredTable
from storage.types import OutboxStatus

WHO = ("--reason", "a test", "--by", "Ada L.")


def refused_create(shell, reference="order 1"):
    """A payment whose create call cannot have arrived; its failure is owed."""
    args = ("--amount", "1", "--currency", "USD", "--reference", reference)
    shell("payments", "create", "alternative", *args, code=Exit.FAILED)
    return shell("payments", "list", "--reference", reference, "--json").json[0]


def kill_everything_owed(shell):
    """Every pending effect has one failed attempt and is dead; their ids."""
    service = shell.service()
    now = service.clock()
    with service.database.write() as unit:
        claimed = outbox.claim_of_others(unit, now, timedelta(seconds=60), [], 100)
        for message in claimed:
            attempt = DeliveryAttempt(
                id="",
                outbox_id="",
                number=0,
                started_at=now,
                duration_ms=7,
                http_status=500,
                outcome="dead",
                error="no",
            )
            outbox.settle(unit, message, attempt, status=OutboxStatus.DEAD, next_attempt_at=now)
    service.close()
    return [message.id for message in claimed]


def webhook(shell, body=b'{"id": "nobody"}'):
    """An authentic message in the inbox, not applied yet; its id."""
    service = shell.service()
    message = inbox.new_message(
        account="stable",
        source="webhook",
        delivery_key="evt_1",
        body=body,
        headers=[("content-type", "application/json")],
        key_id="sandbox",
        received_at=service.clock(),
    )
    with service.database.write() as unit:
        inbox.record(unit, [message])
    service.close()
    return message.id


def test_a_body_is_shown_only_when_asked_for(shell):
    """The bytes and headers of a message need --body, which says what they are."""
    found = webhook(shell, b'{"secret": "of a person"}\x1b[2J\xff')

    plain, whole = shell("inbox", "show", found), shell("inbox", "show", found, "--body")

    assert "of a person" not in plain.out + shell("inbox", "show", found, "--json").out
    assert '{"secret": "of a person"}' in whole.out
    assert "\x1b" not in whole.out
    assert "content-type: application/json" in whole.out
    assert "it may be personal data" in whole.err
    data = shell("inbox", "show", found, "--body", "--json").json
    assert data["body"].startswith('{"secret": "of a person"}')
    assert (data["headers"], data["status"]) == ([["content-type", "application/json"]], "pending")


def test_a_scrubbed_body_is_called_so_wherever_it_is_shown(shell):
    """What retention took is no message of 0 bytes: that it is gone is said, and its digest is kept."""
    found = webhook(shell)
    service = shell.service()
    with service.database.write() as unit:
        kept = inbox.get(unit, found)
        unit.execute(
            update(table_of(InboxMessage))
            .where(table_of(InboxMessage).c.id == found)
            .values(body=b"", scrubbed_at=service.clock())
        )
    service.close()

    assert "bytes scrubbed 20" in shell("inbox", "show", found, "--body").out
    assert kept.digest in shell("inbox", "show", found, "--body").out
    assert shell("inbox", "show", found, "--json").json["size_bytes"] is None
    assert "scrubbed" in shell("inbox", "list").out


@pytest.mark.parametrize(
    ("args", "count"),
    [
        (["--status", "pending"], 1),
        (["--status", "decided"], 2),
        (["--source", "merchant"], 1),
        (["--account", "stable"], 1),
        (["--limit", "2"], 2),
    ],
)
def test_the_inbox_is_filtered(shell, args, count):
    """Status, source and account each leave what they name, the newest first."""
    refused_create(shell)
    webhook(shell)

    listed = shell("inbox", "list", *args, "--json").json

    assert len(listed) == count
    assert [one["id"] for one in listed] == sorted((one["id"] for one in listed), reverse=True)


def test_replaying_applies_once_more_and_names_who(shell):
    """A message is decided by the program as it is now; who asked for it and why is kept."""
    found = webhook(shell, b"not json")

    replayed = shell("inbox", "replay", found[-12:], *WHO, "--json").json

    assert [(one["id"], one["status"]) for one in replayed] == [(found, "parked")]
    assert replayed[0]["reason"].startswith("unreadable")
    again = shell("inbox", "replay", found, *WHO, "--json").json
    assert len(again[0]["outcomes"]) == 2


def test_replaying_the_merchants_wish_makes_no_second_payment(shell):
    """Everything that was recorded may be replayed, the beginning of a payment too."""
    payment = refused_create(shell)
    messages = shell("payments", "show", payment["id"], "--json").json["inbox_messages"]

    shell("inbox", "replay", *(message["id"] for message in messages), *WHO)

    assert [one["id"] for one in shell("payments", "list", "--json").json] == [payment["id"]]
    assert {one["status"] for one in shell("inbox", "list", "--json").json} == {"decided"}
    shell("audit", "verify")


def test_a_replay_needs_a_name_and_a_reason(shell):
    """Nobody replays without saying who and why."""
    found = webhook(shell)

    assert "Missing option" in shell("inbox", "replay", found, "--by", "Ada L.", code=Exit.USAGE).err
    assert "a reason" in shell("inbox", "replay", found, "--by", " ", "--reason", "r", code=Exit.USAGE).err


def test_dead_effects_are_redriven_by_id(shell):
    """A dead effect is due again; one that is not dead cannot be redriven."""
    payment = refused_create(shell)
    (dead,) = kill_everything_owed(shell)
    shown = shell("payments", "show", payment["id"]).out
    assert "is dead" in shown
    in_the_way = "sink shop has answered 500 once, and was given up; redrive it when the sink is mended"
    assert in_the_way in shown
    assert any(
        in_the_way in words
        for words in shell("payments", "show", payment["id"], "--json").json["payment"]["in_the_way"]
    )

    redriven = shell("outbox", "redrive", dead, *WHO, "--json").json

    assert [(one["id"], one["status"], one["attempts"]) for one in redriven] == [(dead, "pending", 1)]
    assert "no dead outbox message" in shell("outbox", "redrive", dead, *WHO, code=Exit.NOT_FOUND).err
    story = shell("payments", "show", payment["id"])
    assert "shop did not take payment.failed" in story.out
    assert "dead: answered 500, " in story.out
    assert "answered 500, 7 ms" in story.out
    assert "Ada L.: redrive of" in story.out


def test_everything_dead_of_a_sink_is_redriven(shell):
    """All that one sink is owed and that is dead is due again, in one command."""
    for number in range(3):
        refused_create(shell, f"order {number}")
    dead = kill_everything_owed(shell)
    assert len(dead) == 3

    typed = shell("outbox", "redrive", "--sink", "shop", "--all-dead", *WHO)

    assert "3 redriven" in typed.err
    assert shell("outbox", "list", "--status", "dead", "--json").json == []
    assert len(shell("outbox", "list", "--status", "pending", "--sink", "shop", "--json").json) == 3


def test_an_effect_that_a_later_one_has_overtaken_stays_dead_unless_it_is_meant(shell):
    """Its payment's state of today was handed over already, and a redrive would tell the past after it."""
    payment = refused_create(shell)
    (dead,) = kill_everything_owed(shell)
    service = shell.service()
    with service.database.write() as unit:
        later = outbox.get(
            unit,
            outbox.owe(
                unit,
                payment_id=payment["id"],
                account=payment["account"],
                effect="payment.paid",
                sink="shop",
                occurrence=0,
                cause=payment["id"],
                payload="{}",
                now=service.clock(),
            )
            or "",
        )
        unit.run("DELETE FROM outbox_queue WHERE outbox_id = ?", [later.id.replace("-", "")])
        end = {"outbox_id": later.id, "attempts": 1, "delivered_at": service.clock(), "seal": ""}
        unit.execute(insert(table_of(OutboxDeliveredTable)), [end])
    service.close()

    assert "payment.failed is older" in shell("outbox", "redrive", dead, *WHO, code=Exit.FAILED).err
    some = shell("outbox", "redrive", "--sink", "shop", "--all-dead", *WHO)
    assert ("0 redriven" in some.err, "stays dead" in some.err) == (True, True)
    assert shell("outbox", "redrive", dead, "--overtaken", *WHO, "--json").json[0]["status"] == "pending"


def test_the_outbox_table_shows_what_waits(shell):
    """The table names effect, sink, attempts and the next attempt."""
    refused_create(shell)

    shown = shell("outbox", "list").out

    assert "payment.failed" in shown
    assert "shop" in shown
    assert "pending" in shown


def test_an_effect_is_found_by_any_end_of_either_of_its_ids(shell):
    """By that of its row, which lists show, and by the `webhook-id`, which the shop has."""
    refused_create(shell)
    (row,) = shell("outbox", "list", "--json").json
    sent = row["webhook_id"].removeprefix("msg_")

    assert sent != row["id"]
    for given in (row["id"], row["id"][-12:], row["webhook_id"], sent, sent[-12:], sent[:8], f"msg_{sent[:13]}"):
        assert shell("outbox", "show", given, "--json").json["id"] == row["id"], given
