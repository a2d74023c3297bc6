import asyncio
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from providers.catalogue import Payfield
from providers.contract import Account, CreateRequest, HttpAnswer
from providers.errors import InsecureUrl, ProviderError, UnsupportedByProvider

AT = datetime(2025, 12, 5, 10, 0, tzinfo=UTC)
PERSON = {"merchant_user_id": "u", "merchant_user_ip": "203.0.113.7"}


class Kept:
    """Answers every request with the same, and keeps it."""

    def __init__(self) -> None:
        self.sent = []

    async def turn(self):
        """At once."""

    async def send(self, method, url, *, headers, content=b""):
        self.sent.append((method, url, dict(headers), content))
        return HttpAnswer(201, {}, b"{}", AT)

    async def pause(self, seconds):
        raise AssertionError("nothing said 429")


def sent(work, *, at=AT, **options):
    kept = Kept()
    account = Account("a", "https://api.example", {"api_key": "key", "api_secret": "test_secret"})
    asyncio.run(work(Payfield.with_options(**options).client(account, kept, lambda: at)))
    return kept.sent[0]


def payin(reference="PAY-BDT-001", amount=500_000, callback_url=None, kind="payin", **extra):
    return CreateRequest(kind, amount, "BDT", reference, "k", callback_url=callback_url, extra=PERSON | extra)


def test_a_get_signs_the_timestamp_alone_as_computed_outside():
    method, url, headers, content = sent(lambda client: client.fetch("payin", "PAY-BDT-001"))

    assert (method, url, content) == ("GET", "https://api.example/api/v1/payins/PAY-BDT-001", b"")
    assert headers["x-api-key"] == "key"
    assert headers["x-timestamp"] == "2025-12-05T10:00:00Z"
    assert headers["x-signature"] == "bc62ebd28f7d5d32d688b0f62610f6651bd823d412b8690dc7d1b071923688cd"


@pytest.mark.parametrize(
    ("options", "stamp"), [({}, "2025-12-05T10:00:00Z"), ({"timestamp_format": "unix"}, "1764928800")]
)
def test_a_create_signs_the_exact_bytes_that_are_sent(options, stamp):
    for at in (AT, AT.astimezone(timezone(timedelta(hours=6)))):
        _, _, headers, content = sent(lambda client: client.create(payin()), at=at, **options)
        expected = hmac.new(b"test_secret", stamp.encode() + content, hashlib.sha256).hexdigest()
        assert (headers["x-timestamp"], headers["x-signature"]) == (stamp, expected)


def test_the_reference_is_escaped_in_the_path():
    _, url, _, _ = sent(lambda client: client.fetch("payout", "a/../b?c=d#e é"), shop_code="shop bdt&x")
    assert url == "https://api.example/api/v1/payouts/a%2F..%2Fb%3Fc%3Dd%23e%20%C3%A9?shop_code=shop+bdt%26x"


def test_what_is_ours_is_not_said_by_the_further_fields():
    async def refused(client):
        for name in ("external_id", "amount", "currency", "callback_url", "shop_code"):
            with pytest.raises(ProviderError) as caught:
                await client.create(replace(payin(), extra=PERSON | {name: "x"}))
            assert (caught.value.type, caught.value.param) == ("invalid_request_error", name)
        with pytest.raises(InsecureUrl):
            await client.create(payin(callback_url="http://shop.example/callbacks/t"))
        with pytest.raises(UnsupportedByProvider):
            await client.create(payin(kind="refund"))
        await client.fetch("payin", "the one request")

    assert sent(refused)[1].endswith("the%20one%20request")
