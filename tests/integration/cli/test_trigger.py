"""What `receipted trigger` and `receipted listen --forward-to` send, and what they print of the answer."""

import json
from datetime import UTC, datetime

import jsonschema_rs
import pytest
from starlette.responses import Response

from receipted.cli.exits import Exit
from service.effect_schema import sample, schema_file
from storage import outbox
from storage.ids import new_id
from tests.support.builders import a_message
from tests.support.effect_receiver import KEY, Receiver
from tests.support.settings_file import SINK_SECRET

SCHEMA = jsonschema_rs.validator_for(schema_file())


@pytest.fixture
def shop():
    found = Receiver()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"{KEY}\n")
    return ("--secret-file", str(file))


@pytest.mark.parametrize("effect", ["payment.paid", "payout.failed", "payment.refund_changed", "account.silent"])
def test_a_sample_is_signed_and_fits_the_schema(empty, shop, secret, effect):
    shop.answers.append(Response("thanks, token=abcdef123", 200))

    typed = empty("trigger", effect, "--to", shop.url, *secret)

    (got,) = shop.received
    assert got.verify() == json.loads(got.body)
    assert SCHEMA.is_valid(json.loads(got.body))
    assert json.loads(got.body)["type"] == effect
    assert typed.code == Exit.DONE
    assert f"{effect} to {shop.url}, webhook-id {got.id}" in typed.out
    assert "taken: answered 200, " in typed.out
    assert "thanks, token=[redacted]" in typed.out


def test_the_answer_of_a_receiver_that_refuses_is_shown_and_the_code_says_so(empty, shop, secret):
    shop.answers.append(Response("no such order", 400))

    typed = empty("trigger", "payment.paid", "--to", shop.url, *secret, "--json", code=Exit.FAILED)

    told = json.loads(typed.out)
    assert (told["http_status"], told["error"], told["answer"]) == (400, "answered 400", "no such order")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("payment.payed", "--to", "http://127.0.0.1:1"), "did you mean payment.paid?"),
        (("payment.paid", "--to", "http://shop.example.com"), "is no endpoint: give https://"),
        (("payment.paid", "--to", "http://127.0.0.1:1", "--secret-file", "/nowhere"), "cannot be read"),
        (("payment.paid", "--to", "http://127.0.0.1:1", "--sink", "nobody"), "nobody"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is(empty, secret, given, said):
    more = () if "--secret-file" in given or "--sink" in given else secret

    assert said in empty("trigger", *given, *more, code=Exit.USAGE).err


def owe(shell, *sinks, effect="payment.paid"):
    """An effect of one account is owed to these sinks; returns its body."""
    service = shell.service()
    now = service.clock()
    text = json.dumps(sample(effect, now, new_id()))
    with service.database.write() as unit:
        for sink in sinks:
            outbox.owe(
                unit,
                payment_id=new_id(),
                account="stable",
                effect=effect,
                sink=sink,
                occurrence=0,
                cause=new_id(),
                payload=text,
                now=now,
            )
    service.close()
    return json.loads(text)


def test_each_effect_is_forwarded_once_and_stays_owed(shell, shop, secret):
    """Two sinks are owed the first one; the shop gets it once, with the bytes that the sinks get."""
    bodies = [owe(shell, "shop", "other"), owe(shell, "shop", effect="payment.refunded")]
    shop.answers.append(Response("got it", 200))

    typed = shell("listen", "stable", "--since", "60", "--count", "2", "--forward-to", shop.url, *secret)

    assert [got.verify() for got in shop.received] == bodies
    assert "got it" in typed.out
    assert [each["status"] for each in shell("outbox", "list", "--json").json] == ["pending"] * 3


def test_a_delivery_is_forwarded_byte_for_byte(shell, shop, secret):
    body = b'{ "id": "evt_1" }'
    message = a_message(account="stable", body=body, headers=[["X-Signature", "abc"]], received_at=datetime.now(UTC))
    shell.write(message)

    shell(
        *("listen", "stable", "--since", "60", "--count", "1", "--deliveries", "--forward-to", shop.url, *secret),
    )

    (got,) = shop.received
    assert (got.body, got.headers["x-signature"]) == (body, "abc")


def test_the_secret_is_of_the_sink_at_the_url_or_named(shell, shop):
    """The settings have one sink, elsewhere; it is the only one that can be meant."""
    shell("trigger", "payment.paid", "--to", shop.url)
    shell("trigger", "payment.paid", "--to", shop.url, "--sink", "shop")

    assert [got.verify(SINK_SECRET)["type"] for got in shop.received] == ["payment.paid"] * 2


def test_forwarding_options_need_a_url(shell):
    assert "go with --forward-to URL" in shell("listen", "stable", "--deliveries", code=Exit.USAGE).err
