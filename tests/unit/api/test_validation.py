"""Queries and bodies are read strictly: what two readers could take for different things is a fault."""

import pytest
from starlette.datastructures import Headers

from api.errors import NotJson
from api.validation import check_media_type, path_id, read_json, read_query, suggestion


@pytest.mark.parametrize(
    ("raw", "pairs", "codes"),
    [
        (b"", [], []),
        (b"a=1&b=", [("a", "1"), ("b", "")], []),
        (b"a=1&a=2&b=3", [("a", "2"), ("b", "3")], ["repeated_field"]),
        (b"a=%ff", [], ["invalid_query"]),
        (b"a=\xc3\xa9", [], ["invalid_query"]),
        (b"&".join(b"a%d=1" % number for number in range(101)), [], ["invalid_query"]),
    ],
)
def test_a_query_is_read_with_its_faults(raw, pairs, codes):
    found, faults = read_query(raw)

    assert found == pairs
    assert [fault.code for fault in faults] == codes
    assert {fault.where for fault in faults} <= {"query"}


@pytest.mark.parametrize(
    ("raw", "content", "codes"),
    [
        (b'{"a": 1.0}', {"a": 1.0}, []),
        (b'{"a": 1, "a": 2}', {"a": 2}, ["repeated_field"]),
        (b'{"a": NaN}', None, ["invalid_json"]),
        (b'{"a": 1e999}', None, ["invalid_json"]),
        (b'{"a": "\\ud800"}', None, ["invalid_json"]),
        (b"\xff", None, ["invalid_json"]),
        (b"{", None, ["invalid_json"]),
        (b"[" * 100_000, None, ["invalid_json"]),
    ],
)
def test_a_body_is_read_with_its_faults(raw, content, codes):
    found, faults = read_json(raw)

    assert found == content
    assert [fault.code for fault in faults] == codes
    assert {fault.where for fault in faults} <= {"body"}


@pytest.mark.parametrize("given", ["application/json", "Application/JSON ; charset=utf-8"])
def test_json_is_taken_however_its_media_type_is_written(given):
    check_media_type(Headers({"content-type": given}))


@pytest.mark.parametrize("given", ["", "text/plain", "application/vnd.x+json", "application/jsonl"])
def test_no_other_media_type_is_taken(given):
    with pytest.raises(NotJson):
        check_media_type(Headers({"content-type": given}))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("amountMinor", "; did you mean amount_minor?"),
        ("ref", "; did you mean reference?"),
        ("zzz", "; there is: amount_minor, reference"),
    ],
)
def test_an_unknown_name_is_answered_with_a_known_one(name, expected):
    assert suggestion(name, ["amount_minor", "reference"]) == expected


def test_an_id_is_put_in_lower_case_and_nothing_else_is_an_id():
    whole = "01A1FDCA-6B5B-712F-B9F0-87EF6D7B7107"

    assert path_id(whole) == whole.lower()
    assert [path_id(given) for given in ("", "nope", whole[:-1], f"{whole}0", f"{whole}\n")] == [None] * 5
