"""What is made of a text that no database keeps."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import decoding
from providers.contract import Reading
from providers.errors import ProviderError
from statemachine.names import is_kept
from statemachine.observation import Observation
from statemachine.phases import Source
from statemachine.sums import Sums

ANY = st.text(st.characters(), max_size=30)


def seen(**changes):
    return Observation(
        **({"source": Source.WEBHOOK, "kind": "payin", "provider_ref": "p1", "status": "paid"} | changes)
    )


@given(ANY | st.builds("".join, st.lists(ANY, max_size=200)), st.integers(1, 300))
def test_words_are_kept_by_any_database(text, longest):
    kept = decoding.words(text, longest)

    assert len(kept) <= longest
    assert "\x00" not in kept
    assert kept.encode().decode() == kept
    assert decoding.words(kept, longest) == kept
    if len(text) <= longest and "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert kept == text


def test_what_is_cut_or_replaced_is_seen():
    assert decoding.words("a\x00b\ud800") == "a\ufffdb\ufffd"
    assert decoding.words("abcdef", 4) == "abc…"


@given(ANY)
def test_a_key_is_kept_whatever_it_is_and_others_stay_others(text):
    kept = decoding.key(text)

    assert 1 <= len(kept) <= 200
    assert is_kept(kept, 200)
    assert decoding.key(text) == kept
    assert decoding.key(text + "\x00") != kept


def test_what_can_be_kept_is_left_as_it_is():
    told = seen(facts={"url": "https://x.example"}, failure_reason="declined", reference="r")

    assert decoding.observation(told) is told
    assert Reading(observations=(told,)).observations[0] is told


@pytest.mark.parametrize(
    "changes",
    [
        {"provider_ref": "p\x00"},
        {"provider_ref": "p" * 201},
        {"provider_ref": "\ud800"},
        {"status": "pa\x00id"},
        {"kind": "k" * 33},
        {"currency": "EURO"},
        {"amount_minor": 2**63},
        {"sums": Sums(captured_minor=-(2**63))},
        {"sums": Sums(refunded_minor=10**15 + 1)},
    ],
    ids=str,
)
def test_a_statement_whose_id_state_or_money_cannot_be_kept_is_unreadable(changes):
    reading = Reading(observations=(seen(**changes),))

    assert (reading.observations, reading.unreadable != "") == ((), True)


def test_a_reference_that_cannot_be_kept_names_no_payment_of_ours():
    (kept,) = Reading(observations=(seen(reference="r\x00", alias="a" * 201),)).observations

    assert (kept.reference, kept.alias, kept.provider_ref) == (None, None, "p1")


def test_facts_and_reasons_are_cleaned():
    told = seen(facts={"a\x00": "b\x00", "long": "x" * 3000, "gone": None}, failure_reason="no\x00", note="\udfff")
    (kept,) = Reading(observations=(told,)).observations

    assert kept.facts == {"a\ufffd": "b\ufffd", "long": "x" * 1999 + "…", "gone": None}
    assert (kept.failure_reason, kept.note) == ("no\ufffd", "\ufffd")


def test_one_of_a_page_takes_no_other_with_it():
    page = Reading(observations=(seen(), seen(amount_minor=2**63), seen(provider_ref="\x00"), seen(provider_ref="p4")))

    assert [(o.provider_ref, o.status) for o in page.observations] == [
        ("p1", "paid"),
        ("p1", None),
        (None, None),
        ("p4", "paid"),
    ]


def test_hints_and_notes_are_kept():
    reading = Reading(hints=("h1", "h\x00", "h" * 201), note="n\x00")

    assert (reading.hints, reading.note) == (("h1",), "n\ufffd")


def test_a_provider_s_error_can_be_kept():
    error = ProviderError("no\x00 " + "x" * 3000, provider_code="c\x00" * 300)

    assert is_kept(error.message, decoding.MAX_TEXT)
    assert is_kept(error.code, decoding.MAX_WORD)
    assert error.provider_code == error.code


@pytest.mark.parametrize("name", ["as_of", "expires_at"])
@pytest.mark.parametrize("year", [1, 1969, 3000, 9999])
def test_an_instant_at_the_ends_of_time_is_left_out_and_the_rest_is_heard(name, year):
    told = seen(**{name: datetime(year, 12, 31, 23, 59, 59, 999999, UTC)})

    kept = decoding.observation(told)

    assert getattr(kept, name) is None
    assert (kept.provider_ref, kept.status) == ("p1", "paid")


@pytest.mark.parametrize("year", [1970, 2026, 2999])
def test_an_instant_that_may_be_meant_is_kept(year):
    told = seen(as_of=datetime(year, 1, 1, tzinfo=UTC), expires_at=datetime(year, 12, 31, tzinfo=UTC))

    assert decoding.observation(told) is told
