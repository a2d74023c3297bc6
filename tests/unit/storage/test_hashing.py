import json
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import hashing
from storage.hashing import canonical
from storage.intake import arrived, message_of

_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(hours=14))])
_INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=_ZONES)  # noqa: DTZ001 - given one
_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | _TEXT
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=20
)


class Word(StrEnum):
    ONE = "é\n"


def by_standard_library(content):
    """The canonical form by another encoder, as anybody can compute it."""

    def plain(value):
        if isinstance(value, datetime):
            return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        raise TypeError

    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=plain).encode()


@given(st.dictionaries(_TEXT, _JSON | _INSTANTS | st.sampled_from([Word.ONE, ("a", 1), [Word.ONE]]), max_size=12))
def test_the_canonical_form_is_json_of_sorted_names(content):
    """Whatever is sealed: any script, control characters, whole numbers, instants."""
    assert by_standard_library(content) == canonical(content)


@given(st.floats() | _JSON | st.lists(st.floats()))
def test_what_a_database_gives_back_is_sealed_alike(value):
    """JSON columns are kept as text."""
    kept = json.loads(msgspec.json.encode(value))
    assert canonical({"a": kept}) == canonical({"a": value})


@pytest.mark.parametrize("character", [*range(0x20), 0x22, 0x2F, 0x5C, 0x7F, 0x80, 0x2028, 0xFEFF, 0xFFFF, 0x1F600])
def test_every_odd_character_is_written_as_by_the_standard_library(character):
    """Escapes are where encoders differ."""
    content = {chr(character): [chr(character)], "headers": [["x", chr(character)]]}
    assert by_standard_library(content) == canonical(content)


@pytest.mark.parametrize("value", [object(), datetime(2026, 1, 1)])  # noqa: DTZ001 - on purpose
def test_what_has_no_canonical_form_is_refused(value):
    """Rather than sealed in some way or other; an instant without a zone too."""
    with pytest.raises(TypeError):
        canonical({"a": value})


@given(
    _INSTANTS,
    st.none() | _INSTANTS,
    st.binary(max_size=50),
    _TEXT,
    st.lists(st.tuples(_TEXT, st.text(st.characters(max_codepoint=255))), max_size=5),
    st.none() | _TEXT,
)
def test_an_arrival_is_sealed_as_its_record_is(received_at, provider_time, body, key, headers, kind):
    """The quick way to the digest that transitions rest on is the same as the audit's."""
    arrival = arrived(
        account="acme",
        source="webhook",
        delivery_key=key,
        body=body,
        received_at=received_at,
        headers=headers,
        key_id=kind,
        provider_time=provider_time,
        kind=kind,
        about=kind,
    )
    message = message_of(arrival)
    assert arrival.envelope == hashing.envelope(message)
    assert by_standard_library({name: getattr(message, name) for name in message.SEALED}) == hashing.canonical(
        {name: getattr(message, name) for name in message.SEALED}
    )
