from datetime import timedelta

import pytest

from console.signing import ConsoleSigner
from tests.support.clock import START as NOW

OLD, NEW = b"an old key of enough bytes", b"a new key of enough bytes"


def test_a_session_is_read_with_any_key_and_signed_with_the_last():
    before, during, after = ConsoleSigner([OLD]), ConsoleSigner([OLD, NEW]), ConsoleSigner([NEW])
    old = before.session("secret")

    assert during.secret(old) == "secret"
    assert after.secret(old) is None
    assert after.secret(during.session("secret")) == "secret"
    assert after.is_form("secret", during.form("secret"))
    assert during.is_form("secret", before.form("secret"))


def test_a_browser_is_known_for_one_name_and_for_half_a_year():
    signing = ConsoleSigner([NEW])
    cookie = signing.known("ada", NOW)

    assert signing.browser(cookie, "ada", NOW) == signing.browser(cookie, "ada", NOW + timedelta(days=179))
    assert signing.browser(cookie, "ada", NOW) != signing.browser(signing.known("ada", NOW), "ada", NOW)
    assert signing.browser(cookie, "bob", NOW) is None
    assert signing.browser(cookie, "ada", NOW + timedelta(days=180)) is None
    assert ConsoleSigner([OLD]).browser(cookie, "ada", NOW) is None


@pytest.mark.parametrize("text", ["", "x", "a.b", "é", "\0", "a" * 10_000, "WzEsIngiXQ.x"])
def test_what_was_not_signed_here_is_nothing(text):
    signing = ConsoleSigner([NEW])

    assert signing.secret(text) is None
    assert signing.flashed(text, NOW) is None
    assert not signing.is_before(text, NOW)
    assert signing.browser(text, "ada", NOW) is None
    assert not signing.is_form("secret", text)


def test_nothing_signed_for_one_purpose_is_taken_for_another():
    signing = ConsoleSigner([NEW])
    session, flash, before = signing.session("s"), signing.flash("ok", "words", NOW), signing.before(NOW)

    assert signing.secret(flash) is None
    assert signing.secret(before) is None
    assert signing.secret(signing.known("ada", NOW)) is None
    assert {signing.browser(other, "ada", NOW) for other in (session, flash, before)} == {None}
    assert signing.flashed(session, NOW) is None
    assert not signing.is_before(session, NOW)
    assert not signing.is_before(flash, NOW)


def test_a_forms_token_tells_nothing_of_the_secret_and_is_of_one_secret():
    signing = ConsoleSigner([NEW])

    assert "secret" not in signing.form("secret")
    assert not signing.is_form("other", signing.form("secret"))


def test_every_letter_of_a_cookie_counts():
    signing = ConsoleSigner([NEW])
    cookie = signing.session("secret")
    for at, letter in enumerate(cookie[:-1]):  # the last of base64 may carry bits that do not count
        changed = cookie[:at] + ("A" if letter != "A" else "B") + cookie[at + 1 :]
        assert signing.secret(changed) is None, at


def test_a_log_in_page_stands_open_for_an_hour_and_words_for_a_minute():
    signing = ConsoleSigner([NEW])
    before, flash = signing.before(NOW), signing.flash("ok", "words", NOW)

    assert signing.is_before(before, NOW + timedelta(minutes=59))
    assert not signing.is_before(before, NOW + timedelta(hours=1))
    assert not signing.is_before(before, NOW - timedelta(seconds=1))
    assert signing.flashed(flash, NOW + timedelta(seconds=59)) == ("ok", "words")
    assert signing.flashed(flash, NOW + timedelta(seconds=60)) is None
