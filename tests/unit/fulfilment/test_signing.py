"""Signing against the published vector and the outside library."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from fulfilment.errors import InvalidSigningKey
from fulfilment.signing import Signer

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def key_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


def test_published_vector():
    signature = Signer([KEY]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(
    keys=st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3),
    body=st.text(st.characters(exclude_categories=["Cs"])),
    timestamp=st.integers(0, 4_000_000_000),
)
def test_as_the_outside_library_signs(keys, body, timestamp):
    """For any keys, body and time the header is what the outside library makes, key by key."""
    texts = ["whsec_" + base64.b64encode(key).decode() for key in keys]
    at = datetime.fromtimestamp(timestamp, UTC)
    expected = [Webhook(text).sign("msg_1", at, body) for text in texts]
    assert Signer(texts).sign("msg_1", timestamp, body.encode()).split(" ") == expected


@pytest.mark.parametrize("size", [24, 32, 64])
def test_permitted_length(size):
    assert Signer([key_of(size)]).sign("msg_1", 1, b"").startswith("v1,")


def test_padding_is_optional():
    assert Signer([key_of(25).rstrip("=")]).sign("m", 1, b"") == Signer([key_of(25)]).sign("m", 1, b"")


@pytest.mark.parametrize(
    "keys",
    [
        [],
        KEY,
        [""],
        ["whsec_"],
        [key_of(23)],
        [key_of(65)],
        [KEY.removeprefix("whsec_")],
        ["whsec_not base64, at all, not even nearly"],
        ["whsec_ключ"],
        [KEY, ""],
    ],
)
def test_refused_key(keys):
    with pytest.raises(InvalidSigningKey):
        Signer(keys)


def test_no_key_in_messages():
    with pytest.raises(InvalidSigningKey) as caught:
        Signer([KEY[:-8]])
    assert KEY[6:20] not in str(caught.value)
    assert KEY[6:20] not in repr(Signer([KEY]))
