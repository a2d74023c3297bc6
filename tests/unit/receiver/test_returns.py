import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import UnknownToken
from receiver.returns import About, Tokens

KEY, NEWER = b"a-key-of-enough-bytes", b"a-newer-key-of-enough-bytes"
abouts = st.builds(About, st.text(max_size=64), st.text(max_size=32), st.uuids().map(str))


@given(abouts, st.sampled_from(["callback", "return"]))
def test_a_token_gives_back_what_it_was_issued_for(about, purpose):
    """Whatever the account and kind are called, and in characters that a path may contain."""
    token = Tokens([KEY]).issue(purpose, about)
    assert about == Tokens([KEY]).read(purpose, token)
    assert token.isascii()
    assert "/" not in token


@given(st.text())
def test_any_other_text_is_unknown_and_nothing_worse(text):
    """Reading is total: it answers or raises UnknownToken."""
    with pytest.raises(UnknownToken):
        Tokens([KEY]).read("callback", text)


@given(abouts, st.data())
def test_a_token_with_one_character_changed_is_unknown(about, data):
    """Every character is covered by the signature."""
    token = Tokens([KEY]).issue("callback", about)
    at = data.draw(st.integers(0, len(token) - 2))  # the last character's lowest bits are padding in base64
    other = data.draw(st.sampled_from("abcXYZ019_-.").filter(lambda c: c != token[at]))
    with pytest.raises(UnknownToken):
        Tokens([KEY]).read("callback", token[:at] + other + token[at + 1 :])


def test_a_token_serves_one_purpose():
    """A return URL, which payers see, is no callback URL."""
    about = About("shop", "payin", "x")
    with pytest.raises(UnknownToken):
        Tokens([KEY]).read("callback", Tokens([KEY]).issue("return", about))


def test_the_last_key_signs_and_every_key_verifies():
    """A key is rotated by adding one: what was given out stays valid until its key is removed."""
    about = About("shop", "payin", "x")
    before, during, after = Tokens([KEY]), Tokens([KEY, NEWER]), Tokens([NEWER])
    assert about == during.read("return", before.issue("return", about))
    assert about == after.read("return", during.issue("return", about))
    with pytest.raises(UnknownToken):
        before.read("return", during.issue("return", about))
