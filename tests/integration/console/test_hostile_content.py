import json
import re
from html.parser import HTMLParser

import pytest

from console.raw_content import RAW_BYTES, masked_headers, raw_bytes
from tests.integration.console.table_rows import acted, owing, paying, rejecting, told
from tests.property.hostile import TEXTS

MARKUP = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</pre><script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "javascript:alert(1)",
    "'; DROP TABLE payment; --",
)
#: What a column may hold: PostgreSQL and the intake refuse the rest.
KEPT = [each for each in (*MARKUP, *TEXTS) if (each and "\0" not in each and each.isascii()) or each in MARKUP]


class Seen(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.attributes += [(name, value or "") for name, value in attributes]


def is_harmless(page):
    """Nothing of it runs, and nothing leads out of the console."""
    seen = Seen(page)
    assert not [each for each in seen.attributes if each[0].startswith("on") or each[0] == "style"]
    for tag, attributes in seen.elements:
        assert tag not in ("img", "iframe", "object", "base", "style"), tag
        if tag == "script":
            assert attributes["src"].startswith("/console/static/")
    for name, value in seen.attributes:
        if name in ("href", "action", "src"):
            assert value.startswith("/console/") or value == "#content", value
    assert not re.search(r"<script(?![^>]*src=)", page)
    assert not any(letter in page for letter in "\u202e\x01\x1f")


@pytest.mark.parametrize("text", KEPT, ids=range(len(KEPT)))
def test_what_others_sent_is_shown_and_never_run(console, text):
    viewer, short = console.client(), text[:64]
    payment = paying(console, reference=text[:255], provider_ref=text[:255], state=short)
    message = told(
        console,
        "parked",
        delivery_key=text[:200] + "-1",
        body=json.dumps([text]).encode(),
        headers=[("x-a", text), (short, "b")],
    )
    owed = owing(console, sink=short, payload=json.dumps({"a": text}))
    rejected = rejecting(console, body=text.encode(), headers=[["x-a", text]], reason=text[:32], client=short)
    acted(console, payment.id, actor=text[:128], reason=text)

    for key in ("payments", "inbox", "outbox", "quarantine", "actions", "audit"):
        page = viewer.get(f"/console/tables/{key}/list")
        assert page.status_code == 200, page.text
        is_harmless(page.text)
    for key, row_id in (("inbox", message.id), ("outbox", owed), ("quarantine", rejected)):
        page = viewer.get(f"/console/tables/{key}/detail?pk={row_id}")
        assert page.status_code == 200, page.text
        is_harmless(page.text)
        assert page.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("text", MARKUP)
def test_what_was_asked_for_is_shown_and_never_run(console, text):
    viewer = console.client()
    for name in ("q", "state", "account"):
        page = viewer.get("/console/tables/payments/list", params={name: text})
        assert page.status_code == 200
        is_harmless(page.text)


@pytest.mark.parametrize("body", [b"\0\x01", bytes(range(256)), b"\xff\xfe<script>", b"<script>\0"])
def test_bytes_that_are_no_text_are_shown_as_bytes(console, body):
    rejected = rejecting(console, body=body)
    page = console.client().get(f"/console/tables/quarantine/detail?pk={rejected}").text

    is_harmless(page)
    assert "not text" in page
    assert body[:2].hex(" ") in page


def test_a_large_body_is_cut_between_characters():
    shown = raw_bytes(("é" * RAW_BYTES).encode())
    odd = raw_bytes(("x" + "é" * RAW_BYTES).encode())

    assert (shown.is_cut, shown.size, len(shown.text)) == (True, 2 * RAW_BYTES, RAW_BYTES // 2)
    assert odd.text == "x" + "é" * (RAW_BYTES // 2 - 1)
    assert raw_bytes(b"").text == ""
    assert raw_bytes(b"a\xc3").text is None


def test_what_could_be_used_by_a_reader_is_not_shown():
    kept = [
        ("Authorization", "Bearer x"),
        ("X-Payfield-Signature", "abc"),
        ("cookie", "a=b"),
        ("x-api-key", "k"),
        ("authorization", "sha256=" + "0" * 64),
        ("content-type", "application/json"),
        ("x-note", "a\x1bb"),
    ]

    assert masked_headers(kept) == [
        ("Authorization", "(8 characters, not shown)"),
        ("X-Payfield-Signature", "(3 characters, not shown)"),
        ("cookie", "(3 characters, not shown)"),
        ("x-api-key", "(1 characters, not shown)"),
        ("authorization", "sha256=" + "0" * 64),
        ("content-type", "application/json"),
        ("x-note", "a\ufffdb"),
    ]
