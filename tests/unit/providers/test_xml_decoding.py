"""XML with types in attributes is read as JSON is, and refuses what no provider sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.decoding import Unreadable, form_field
from providers.engine.xml_decoding import xml_text, xml_value

READ = {
    "<a>text</a>": {"a": "text"},
    "<a/>": {"a": None},
    "<a>  \n </a>": {"a": None},
    '<a nil="true"/>': {"a": None},
    '<a type="integer">42</a>': {"a": 42},
    '<a type="boolean">true</a>': {"a": True},
    '<a type="boolean">false</a>': {"a": False},
    '<a type="datetime">2026-04-01T10:00:00Z</a>': {"a": "2026-04-01T10:00:00Z"},
    '<a type="array"/>': {"a": []},
    '<a type="array"><i>1</i><i>2</i></a>': {"a": ["1", "2"]},
    "<a>\n <b>1</b>\n <c-d>2</c-d>\n</a>": {"a": {"b": "1", "c-d": "2"}},
    "<a><b>1</b><b>2</b><b>3</b></a>": {"a": {"b": ["1", "2", "3"]}},
    "<a>&lt;&amp;&#228;</a>": {"a": "<&ä"},
    "<a><![CDATA[<b>]]></a>": {"a": "<b>"},
}


@pytest.mark.parametrize("text", READ)
def test_an_element_is_read_by_its_attributes(text):
    assert xml_value(text.encode()) == READ[text]


UNREADABLE = {
    "nothing": b"",
    "no XML": b"{}",
    "two roots": b"<a/><b/>",
    "no end": b"<a><b></a>",
    "no integer": b'<a type="integer">4.2</a>',
    "a huge integer": b'<a type="integer">' + b"9" * 5000 + b"</a>",
    "an unknown encoding": b'<?xml version="1.0" encoding="nothing-like-it"?><a/>',
    "too deep": b"<a>" * 100 + b"</a>" * 100,
    "too large": b"<a>" + b"<b/>" * 100_001 + b"</a>",
    "entities": b'<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">]><a>&x;</a>',
    "a file": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>',
    "a document type": b"<!DOCTYPE a><a/>",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_no_provider_sends_is_unreadable(name):
    """Nothing else is raised, nothing grows, and no file is read."""
    with pytest.raises(Unreadable):
        xml_value(UNREADABLE[name])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_unreadable(body):
    """Total, also behind the beginning of a document."""
    for given_ in (body, b"<a>" + body + b"</a>"):
        try:
            assert isinstance(xml_value(given_), dict)
        except Unreadable:
            continue


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(lambda t: t.strip())
_VALUES = st.recursive(
    st.booleans() | st.integers(-(10**9), 10**9) | _TEXT.filter(lambda t: t.isprintable()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["b", "c-d"]), inner, min_size=1),
    max_leaves=10,
)


@given(_VALUES)
def test_what_is_written_is_read_back(value):
    """Types stand in attributes; text is escaped."""
    assert xml_value(xml_text({"a": value})) == {"a": value}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"a=1&b=2", "1"),
        (b"a=1&a=1", None),
        (b"b=2", None),
        (b"a=", ""),
        (b"a=%0A", "\n"),
        (b"\xff=1", None),
        (b"&".join([b"x=1"] * 2000) + b"&a=1", None),
    ],
)
def test_a_field_that_is_not_there_once_is_none(body, found):
    """Which of two is meant would be a guess."""
    assert form_field(body, "a") == found
