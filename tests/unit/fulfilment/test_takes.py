"""Which effects a sink takes."""

import pytest

from fulfilment.takes import OF_EMAIL, Takes, unknown

EFFECTS = ("payment.paid", "payout.paid", "payment.review_required", "payment.review_closed", "account.silent")


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        (("*",), EFFECTS),
        (OF_EMAIL, ("payment.review_required", "payment.review_closed", "account.silent")),
        (("payment.paid",), ("payment.paid",)),
        (("*.paid",), ("payment.paid", "payout.paid")),
        (("payment.review_required",), ("payment.review_required", "payment.review_closed")),
        (("payout.review_required",), ()),
        (("payment",), ()),
        (("payment?paid", "payment.[p]aid", "payment.pai.", ""), ()),
        ((), ()),
    ],
)
def test_by_names_and_patterns(patterns, taken):
    assert tuple(effect for effect in EFFECTS if Takes(patterns)(effect)) == taken


def test_what_matches_nothing_is_unknown():
    given = ("payment.*", "payment.payed", "acount.*", "*", "account.silent", "")
    assert unknown(given, EFFECTS) == ["payment.payed", "acount.*", ""]
