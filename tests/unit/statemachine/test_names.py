"""What may name a payment."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.names import MAX_NAME_CHARS, NAME_PATTERN, is_kept, is_name

NAMES = (
    *("order-17", "INV/2024/001", "a.b", "...", ".hidden", "a..b", "1", " order ", "x" * MAX_NAME_CHARS),
    *("order\u00a01", "注文\u3000一", "\u202forder", "👨\u200d👩\u200d👧", "or\u00adder", "\ufefforder", "\u200forder"),
    *("\ue000", "\U0010ffff", "e\u0301", "ıßﬁ", "%2e%2e", "\ufffe"),
)
NO_NAMES = (
    *("", "x" * (MAX_NAME_CHARS + 1), "a\n", "\ta", "a\x1b[31m", "a\x00", "a\x7f", "a\x85b", "a\u2028b", "a\u2029b"),
    *("\ud800", "a\udfff", " ", "\u00a0\u3000", "\u200b\ufeff", "\u00ad"),
    *(".", "..", "a/..", "../a", "a/./b", "..\\a", "a\\.."),
)


@pytest.mark.parametrize("text", NAMES, ids=ascii)
def test_what_is_seen_and_stays_in_its_line_and_its_path_is_a_name(text):
    assert is_name(text)
    assert re.search(NAME_PATTERN, text)


@pytest.mark.parametrize("text", NO_NAMES, ids=ascii)
def test_what_breaks_a_line_or_leaves_its_path_or_is_seen_by_nobody_is_none(text):
    assert not is_name(text)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=MAX_NAME_CHARS))
def test_the_pattern_of_the_description_and_the_rule_say_the_same(text):
    described = re.search(NAME_PATTERN.removesuffix("$") + r"\Z", text) is not None

    assert is_name(text) == (described and 0 < len(text) <= MAX_NAME_CHARS)


@given(st.text(st.characters(), max_size=MAX_NAME_CHARS))
def test_whatever_is_a_name_is_kept_by_every_database(text):
    assert is_kept(text, MAX_NAME_CHARS) or not is_name(text)
