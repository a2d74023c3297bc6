"""CSV that no spreadsheet of any locale takes for formulas."""

import csv
import io
import itertools
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.csv_text import cell, encoded, harmless

PREFIXES = "=+-@＝＋－＠"
SEPARATORS = ";|\t\r\n"


def read(content, delimiter=","):
    return list(csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter))


def cells_by(text, separator):
    """The cells of a spreadsheet that ends each at the separator or a line's end, whatever the quotes around it."""
    for line in text.replace("\r", "\n").split("\n"):
        for part in line.split(separator):
            yield part.strip().strip('"').strip()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("before", ["", " ", "\t", "\n", "a;", "a; ", "a|", "a\t", "a\n", "a\r\n", 'a;"', "\u3000"])
def test_a_formula_has_an_apostrophe_wherever_a_cell_may_begin(prefix, before):
    text = f"{before}{prefix}1+1"
    for separator in (*SEPARATORS, ","):
        found = [part for part in cells_by(harmless(text), separator) if part.startswith(tuple(PREFIXES))]
        assert found == [], (text, harmless(text), separator)


@pytest.mark.parametrize("text", ["a-b", "a=b", "a@b.example", "5+5", "a,=1", "a;b", "x | y", "'=1", "2026-11-21"])
def test_what_is_no_formula_is_as_it_was(text):
    assert harmless(text) == text


def test_every_text_is_quoted_and_every_number_is_not():
    rows = [["a", 'b"c', 1, -2.5, None, True, Decimal("-1.50"), "", ["x", -1], {"k": "=1"}]]

    assert encoded(rows) == b'"a","b""c",1,-2.5,,true,-1.50,"","[""x"",-1]","{""k"":""=1""}"\n'


def test_instants_are_of_utc_and_lists_are_json():
    at = datetime(2026, 11, 21, 9, 30, tzinfo=timezone(timedelta(hours=2)))

    assert cell(at) == '"2026-11-21T07:30:00Z"'
    assert cell([at.astimezone(UTC)]) == '"[""2026-11-21T07:30:00Z""]"'


@pytest.mark.parametrize("text", ["\x00", "\x1b[31m", "\u202e", "\ud800", "\ufeff=1"])
def test_what_steers_a_reader_is_replaced(text):
    assert "�" in cell(text)
    assert encoded([[text]]).decode()


@given(st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=4), max_size=4))
def test_whatever_is_written_is_read_again_and_is_no_formula(rows):
    content = encoded(rows)

    assert [len(row) for row in read(content)] == [len(row) for row in rows]
    for row in read(content):
        assert not [text for text in row if text.strip().startswith(tuple("=+-@"))]
    for separator in ";|\t":
        for part in itertools.chain.from_iterable(cells_by(line, separator) for line in content.decode().split("\n")):
            assert not part.startswith(tuple("=+-@")) or "," in part
