import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Delivery
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, matching_key

NOW = datetime(2026, 8, 1, tzinfo=UTC)


def test_a_vector_of_rfc_4231():
    """Test case 6: a key larger than the block."""
    key = Key("k", b"\xaa" * 131)
    found = key.hmac(b"Test Using Larger Than Block-Size Key - Hash Key First")
    assert found.hex() == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"


def test_the_first_key_that_matches_is_named_whichever_are_tried():
    """Keys that have ended or not begun do not count; with none that is active the signature is not wrong."""
    keys = KeyRing(
        (
            Key("ended", b"a" * 16, not_after=NOW),
            Key("old", b"b" * 16),
            Key("new", b"c" * 16, not_before=NOW),
            Key("new again", b"c" * 16),
        )
    )
    parts = (b"12", b".", b"body")

    def signed(secret: bytes) -> bytes:
        return hmac.new(secret, b"".join(parts), hashlib.sha256).digest()

    assert matching_key(keys, NOW, signed(b"b" * 16), *parts).id == "old"
    assert matching_key(keys, NOW, signed(b"c" * 16), *parts).id == "new"
    assert matching_key(keys, NOW - timedelta(seconds=1), signed(b"c" * 16), *parts).id == "new again"
    with pytest.raises(DeliveryRejected, match="signature wrong"):
        matching_key(keys, NOW, signed(b"a" * 16), *parts)
    with pytest.raises(DeliveryRejected, match="no active key"):
        matching_key(KeyRing(keys.keys[:1]), NOW, signed(b"a" * 16), *parts)


def test_keys_are_equal_by_what_they_say_and_show_no_secret():
    """What is derived of a key is no part of it."""
    assert Key("k", b"s" * 16) == Key("k", b"s" * 16)
    assert Key("k", b"s" * 16) != Key("k", b"t" * 16)
    assert "ssss" not in repr(Key("k", b"s" * 16))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=6))
def test_a_header_is_what_all_of_its_name_say(headers):
    """One value however often it is given; none where there are two, or no header."""
    values = {value for name, value in headers if name == "a"}
    assert Delivery(b"", tuple(headers)).header("a") == (values.pop() if len(values) == 1 else None)
