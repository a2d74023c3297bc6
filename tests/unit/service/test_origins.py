"""How it is known who made a statement, in words."""

from datetime import timedelta

import pytest

from providers.errors import DeliveryRejected
from service import origins
from statemachine.own_statements import CONTENT_TYPE
from statemachine.phases import Source
from storage.tables import RejectedDelivery
from tests.support.builders import PROVIDERS, a_message
from tests.support.clock import START


@pytest.mark.parametrize("reason", sorted(DeliveryRejected.REASONS))
def test_every_reason_to_reject_has_words(reason):
    rejected = RejectedDelivery(
        id="x", account="acme", received_at=START, reason=reason, client="192.0.2.1", headers=[], body=b""
    )

    (name, words), *_ = origins.of_rejected(rejected, None)

    assert (name, words) == ("not believed", f"{reason.replace('_', ' ')}: {origins.REJECTIONS[reason]}")


@pytest.mark.parametrize("source", list(Source))
def test_every_source_has_an_origin(source):
    facts = origins.of_message(a_message(source=source.value), PROVIDERS["banked"].authentication)

    assert facts
    assert all(name and words for name, words in facts)


def test_the_skew_is_told_to_the_millisecond_and_on_which_side():
    late = a_message(
        provider_time=START - timedelta(milliseconds=1500), key_id="k1", headers=[("banked-signature", "1.ab")]
    )
    early = a_message(provider_time=START + timedelta(seconds=40), key_id="k1")
    scheme = PROVIDERS["banked"].authentication

    facts = dict(origins.of_message(late, scheme))
    assert facts["signature"] == "banked-signature: 1.ab"
    assert facts["skew"].endswith("received 1.500 s later")
    assert facts["key"] == "k1 matched, when it was received"
    assert "signed time" not in facts  # the same header holds both
    assert dict(origins.of_message(early, scheme))["skew"].endswith("received 40 s before that, by our clock")


def test_a_statement_of_our_own_is_told_by_how_it_came_and_not_by_what_a_sender_writes():
    ours = a_message(source="merchant", headers=[("content-type", CONTENT_TYPE)])
    forged = a_message(source="webhook", headers=[("content-type", CONTENT_TYPE)])

    assert "statement of our own" in dict(origins.of_message(ours, None))["origin"]
    assert "origin" not in dict(origins.of_message(forged, None))
