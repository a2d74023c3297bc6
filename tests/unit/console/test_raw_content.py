"""What a message holds, as people read it: nothing is lost, nothing steers, and no bytes are an error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.raw_content import CONTENT_BYTES, message_content
from tests.support.builders import a_message
from tests.support.clock import START


def of(body: bytes, **columns):
    message = a_message(body=body)
    for name, value in columns.items():
        setattr(message, name, value)
    return message_content(message)


def test_json_is_shown_exactly_and_with_lines():
    body = b'{"amount":450.00,"big":12345678901234567890.10,"to":{"a":[],"b":[1,"x, [y] \\" z"]},"a":1,"a":2}'

    found = of(body)

    assert (found.kind, found.exact, found.size) == ("json", body.decode(), len(body))
    assert found.pretty == LINES


LINES = """\
{
  "amount": 450.00,
  "big": 12345678901234567890.10,
  "to": {
    "a": [],
    "b": [
      1,
      "x, [y] \\" z"
    ]
  },
  "a": 1,
  "a": 2
}"""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from([None, 1, "\t"]))
def test_json_with_lines_says_the_same(value, indent):
    """Every value is as it came, whatever the white space between them was."""
    body = json.dumps(value, indent=indent).encode()
    found = of(body)

    if not found.left_off:
        assert found.pretty is not None
        assert json.loads(found.pretty) == value


@given(st.binary(max_size=6000))
def test_any_bytes_are_shown_and_none_is_an_error(body):
    found = of(body)

    assert found.size == len(body)
    assert found.left_off == max(0, len(body) - CONTENT_BYTES)
    assert all(letter.isprintable() or letter in "\n\t\u200c\u200d" for letter in found.exact + (found.pretty or ""))


@pytest.mark.parametrize("letter", ["\x1b", "\u202e", "\r", "\x9b", "\u2028", "\ue000", "\u2066"])
def test_what_would_steer_is_an_escape(letter):
    found = of(f'{{"note": "a{letter}b"}}'.encode() if letter >= " " else f"a{letter}b".encode())

    assert letter not in found.exact + (found.pretty or "")
    assert f"\\u{ord(letter):04x}" in found.exact


def test_what_is_no_text_is_hexadecimal():
    found = of(b"\x00\xffAB" + bytes(16))

    assert found.kind == "bytes"
    assert found.exact.splitlines()[0] == "000000  00 ff 41 42 00 00 00 00 00 00 00 00 00 00 00 00  ..AB............"


def test_a_long_body_is_cut_and_says_so():
    found = of(b'{"a": "' + b"x" * 10_000 + b'"}')

    assert (found.kind, found.pretty, len(found.exact), found.left_off) == (
        "text",
        None,
        CONTENT_BYTES,
        10_009 - CONTENT_BYTES,
    )


def test_what_was_scrubbed_is_not_empty():
    assert of(b"", scrubbed_at=START).kind == "scrubbed"
    assert of(b"").kind == "empty"


def test_json_that_is_too_deep_is_text():
    assert of(b"[" * 2000 + b"]" * 2000).kind in ("text", "json")
