from datetime import timedelta

import pytest

from console.formatting import browser_name, byte_size, duration, money, sentence, short_id


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [
        (123456789, "USD", "1,234,567.89"),
        (0, "EUR", "0.00"),
        (-5, "EUR", "-0.05"),
        (-123456, "EUR", "-1,234.56"),
        (1500, "JPY", "1,500"),
        (1234567, "KWD", "1,234.567"),
        (10**15, "USD", "10,000,000,000,000.00"),
    ],
)
def test_money_is_shown_exactly(minor, currency, shown):
    assert money(minor, currency) == f'<span class="money">{shown} <span class="unit">{currency}</span></span>'


def test_an_amount_without_a_currency_is_in_minor_units():
    assert "minor units" in money(1234, None)
    assert "1,234" in money(1234, None)
    assert "–" in money(None, "USD")


def test_a_currency_that_is_none_is_no_markup():
    assert "<b>" not in money(1, "<b>")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (86_400, "24 h"),
     (172_800, "2 d"), (86_400 * 400, "400 d")],
)  # fmt: skip
def test_a_span_has_at_least_two_of_its_unit(seconds, words):
    assert duration(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")])
def test_a_size_is_shown(count, shown):
    assert byte_size(count) == shown


def test_an_id_is_shown_by_its_end_and_markup_by_itself():
    assert "…23456789abcd" in short_id("01a1fe2d-ac94-762a-afc9-123456789abcd"[-36:] or "")
    assert "<b>" not in short_id("<b>")


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) (KHTML, like Gecko) Chrome/126.0 Safari/537.36", "Chrome on Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/127.0", "Firefox on Windows"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "Unnamed browser"),
    ],
)  # fmt: skip
def test_a_browser_is_called_what_people_call_it(agent, words):
    assert browser_name(agent) == words


def test_words_become_a_sentence():
    assert [sentence(words) for words in ("it is", "It is.", "is it?", "")] == ["It is.", "It is.", "Is it?", ""]
