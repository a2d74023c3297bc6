"""Which effects a sink takes."""

import pytest

from fulfilment.contract import EMAIL_DEFAULT_PATTERNS, EffectFilter, unknown_patterns

EFFECTS = ("payment.paid", "payout.paid", "payment.review_required", "payment.review_closed", "account.silent")


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        (("*",), EFFECTS),
        (EMAIL_DEFAULT_PATTERNS, ("payment.review_required", "payment.review_closed", "account.silent")),
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
    assert tuple(effect for effect in EFFECTS if EffectFilter(patterns)(effect)) == taken


def test_what_matches_nothing_is_unknown():
    given = ("payment.*", "payment.payed", "acount.*", "*", "account.silent", "")
    assert unknown_patterns(given, EFFECTS) == ["payment.payed", "acount.*", ""]
