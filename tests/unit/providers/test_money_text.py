"""Amounts and currencies that only some readers take for such: unreadable at every provider."""

import json
from datetime import UTC, datetime

import pytest

from providers.contract import Statement
from statemachine.phases import Source
from tests.support.builders import PROVIDERS
from tests.unit.statemachine.test_money import NO_AMOUNTS, NO_CURRENCIES

AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)

#: By provider: a currency of its, and the body of a message that tells money.
TELLS = {
    "payfield": (
        "BDT",
        Source.WEBHOOK,
        lambda amount, currency: {"external_id": "o1", "status": "success", **amount, **currency},
    ),
    "stable_genius": (
        "usd",
        Source.WEBHOOK,
        lambda amount, currency: {
            "type": "payment_intent.confirmed",
            "data": {"id": "pi_1", "status": "confirmed", **amount, **currency},
        },
    ),
    "alternative_payments": (
        "USD",
        Source.POLL,
        lambda amount, currency: {"id": "r1", "status": "paid", **amount, **currency},
    ),
    "banked": (
        "GBP",
        Source.WEBHOOK,
        lambda amount, currency: {"id": "b1", "webhook_event": "payment_sent", "state": "sent", **amount, **currency},
    ),
}

#: What the documents of each show.
DOCUMENTED = {
    "payfield": [("5000.00", 500_000), ("5000", 500_000), (5000, 500_000), (5000.5, 500_050)],
    "stable_genius": [(4.5, 450), (10, 1000), ("10.00", 1000)],
    "alternative_payments": [("100", 100), (100, 100)],
    "banked": [(1000, 1000), (1000.0, 1000)],
}


def read(name, amount, currency):
    source, body = TELLS[name][1], TELLS[name][2]({"amount": amount}, {"currency": currency})
    kind = PROVIDERS[name].default_kind if source is Source.POLL else None
    return PROVIDERS[name].parse(Statement(source, json.dumps(body).encode(), AT, kind=kind))


@pytest.mark.parametrize("name", TELLS)
def test_what_the_documents_show_is_read(name):
    for amount, minor in DOCUMENTED[name]:
        (seen,) = read(name, amount, TELLS[name][0]).observations
        assert (seen.amount_minor, seen.currency) == (minor, TELLS[name][0].upper())


@pytest.mark.parametrize("amount", [*NO_AMOUNTS, -1, -0.01, "-1.00", "-0.0", True, [], {}], ids=ascii)
@pytest.mark.parametrize("name", TELLS)
def test_an_amount_that_only_some_take_for_one_is_unreadable(name, amount):
    found = read(name, amount, TELLS[name][0])

    assert found.unreadable
    assert found.observations == ()


@pytest.mark.parametrize("currency", [*NO_CURRENCIES, 978, ["USD"]], ids=ascii)
@pytest.mark.parametrize("name", TELLS)
def test_a_currency_that_only_some_take_for_one_is_unreadable(name, currency):
    found = read(name, 1, currency)

    assert found.unreadable
    assert found.observations == ()
