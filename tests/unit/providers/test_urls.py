"""Pages that a payer is sent to, and URLs that we register: what every parser and every browser reads alike."""

import json
from datetime import UTC, datetime

import pytest

from providers.contract import Statement
from providers.errors import InsecureUrl
from providers.http import page_url, require_https
from statemachine.phases import Source
from tests.support.builders import PROVIDERS

AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)

NOWHERE_TO_GO = (
    *(
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\nscript:alert(1)",
        " javascript:alert(1)",
        "\x01javascript:alert(1)",
    ),
    *(
        "data:text/html,<script>",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://shop.example/",
        "//shop.example/",
        "/thanks",
    ),
    *("http://shop.example/", "https:///thanks", "https://", "https:shop.example", "", "shop.example"),
    *("https://user@shop.example/", "https://user:secret@shop.example/", "https://:secret@shop.example/"),
    *("https://shop.example/\n", "https://shop.example/a b", "https://sh\top.example/", "https://shop.example/\x00"),
    *(
        "https://shop.example\\@elsewhere.example/",
        "https:\\\\shop.example",
        "https://shop.example/\u2028",
        "https://shop\u3000/",
    ),
    *("https://shop.example:port/", "https://shop.example:99999/", "https://[::1", "https://shop.example/\x9b"),
)


@pytest.mark.parametrize("url", NOWHERE_TO_GO, ids=ascii)
@pytest.mark.parametrize("is_dev", [False, True])
def test_nobody_is_sent_there(url, is_dev):
    with pytest.raises(InsecureUrl):
        require_https(url, allow_loopback=is_dev)
    assert page_url(url, allow_loopback=is_dev) is None


@pytest.mark.parametrize(
    "url", ["https://shop.example/thanks?order=1&x=%20#a", "https://shop.example:8443", "https://münchen.example/ü"]
)
def test_an_https_page_is_one(url):
    assert page_url(url) == require_https(url) == url


def test_loopback_is_for_development():
    for url in ("http://127.0.0.1:8000/thanks", "http://localhost/", "http://[::1]:80/"):
        assert require_https(url, allow_loopback=True) == url
        with pytest.raises(InsecureUrl):
            require_https(url)


@pytest.mark.parametrize(
    "value", [None, 7, True, [], {"url": "https://shop.example/"}, "https://shop.example/" + "x" * 2000]
)
def test_what_is_no_text_or_too_long_is_no_page(value):
    assert page_url(value) is None


@pytest.mark.parametrize("url", NOWHERE_TO_GO, ids=ascii)
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("payfield", {"external_id": "o1", "status": "pending", "payment_page_url": ...}),
        ("payfield", {"external_id": "o1", "status": "pending", "paymentData": {"payment_link": ...}}),
        ("alternative_payments", {"id": "r1", "status": "pending", "url": ...}),
        ("stable_genius", {"id": "pi_1", "status": "awaiting_payment", "qr_image_url": ..., "url": ...}),
        ("banked", {"id": "b1", "state": "initiated", "url": ...}),
        ("banked", {"id": "b1", "state": "initiated", "checkout_url": ...}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_no_answer_of_a_provider_sends_a_payer_there(name, body, url):
    def filled(value):
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        return url if value is ... else value

    provider = PROVIDERS[name]
    told = Statement(Source.CREATE, json.dumps(filled(body)).encode(), AT, kind=provider.default_kind, http_status=200)
    (seen,) = provider.parse(told).observations

    assert url == "" or url not in seen.facts.values()
