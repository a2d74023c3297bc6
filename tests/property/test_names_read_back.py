"""Accepted implies read back: whatever may be sent as a name is read again, at every provider and at every door."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from api.validation import PaymentName
from providers.contract import Account, Answer, CreateRequest, HttpAnswer, Provider, Statement
from statemachine.names import is_name
from statemachine.observation import Observation
from statemachine.phases import Source
from tests.support.builders import PROVIDERS

AT = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
SECRETS = dict.fromkeys(("api_key", "api_secret", "client_id", "client_secret"), "a-secret-of-enough-bytes")
EXTRA: dict[str, Mapping[str, object]] = {
    "payfield": {"merchant_user_id": "17", "merchant_user_ip": "192.0.2.1"},
    "banked": {},
}
KINDS = {
    "payfield": "payin",
    "banked": "payin",
    "stable_genius": "payment_intent",
    "alternative_payments": "payment_request",
}
CURRENCIES = {"payfield": "BDT", "banked": "AUD"}
ODD = (
    "order\u00a01",
    "注文\u3000",
    "👨\u200d👩\u200d👧",
    "or\u00adder",
    "\ufefforder",
    "\u200forder",
    "\ue000",
    "a/b",
    "%2e%2e",
)

#: All of Unicode, and often what some program takes for a space, a line or nothing.
TEXTS = st.text(st.characters(), min_size=1, max_size=210) | st.text(
    st.characters(categories=("Zs", "Zl", "Zp", "Cf", "Cc", "Co", "Cn", "Mn")) | st.sampled_from("a./\\ "), min_size=1
)


class Echo:
    """Answers every call as the provider would: with the resource, in which stands what was sent."""

    def __init__(self, answered: Callable[[Any], Any], *, is_escaped: bool) -> None:
        self._answered, self._is_escaped = answered, is_escaped
        self.urls: list[str] = []

    async def turn(self) -> None:
        """At once."""

    async def send(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> HttpAnswer:
        if url.endswith("/oauth/token"):
            return HttpAnswer(200, {}, b'{"access_token": "t", "expires_in": 60}', AT)
        self.urls.append(url)
        told = self._answered(json.loads(content) if content else None)
        return HttpAnswer(200, {}, json.dumps(told, ensure_ascii=self._is_escaped).encode(), AT)

    async def pause(self, seconds: float) -> None:
        raise AssertionError("nothing said 429")


def resource(name: str, sent: Any) -> Any:
    """What the provider shows of what was created with this body."""
    if name == "payfield":
        return {"id": 1, "status": "pending", "external_id": sent["external_id"]}
    if name == "banked":
        ours = sent["payment_identification"]
        return {"id": "b1", "status_details": {"status": "PENDING"}, "payment_identification": ours}
    if name == "stable_genius":
        return {"id": "pi_1", "status": "awaiting_payment", "metadata": sent["metadata"]}
    return {"id": "r1", "status": "pending", "reference_id": sent["reference_id"]}


def read(provider: Provider, answer: Answer, source: Source) -> Observation:
    statement = Statement(source, answer.body, AT, kind=answer.kind, ref=answer.ref, http_status=answer.status)
    reading = provider.parse(statement)
    assert not reading.unreadable, reading
    (seen,) = reading.observations
    return seen


def client_of(name: str, echo: Echo) -> Any:
    account = Account("a", "https://api.example", SECRETS)
    return PROVIDERS[name].client(account, echo, lambda: AT)


def with_odd(test: Any) -> Any:
    for text in ODD:
        test = example(text=text, is_escaped=False)(test)
    return test


@pytest.mark.parametrize("name", PROVIDERS)
@with_odd
@given(text=TEXTS.filter(is_name), is_escaped=st.booleans())
def test_a_reference_that_is_accepted_is_read_back_from_the_provider_s_own_answer(name, text, is_escaped):
    """Whatever may be sent as a reference comes back as itself, however the provider writes its JSON."""
    wish = CreateRequest(KINDS[name], 1000, CURRENCIES.get(name, "USD"), text, "k", extra=EXTRA.get(name, {}))
    echo = Echo(lambda sent: resource(name, sent), is_escaped=is_escaped)

    seen = read(PROVIDERS[name], asyncio.run(client_of(name, echo).create(wish)), Source.CREATE)

    assert seen.reference == text
    assert seen.provider_ref == (text if name == "payfield" else seen.provider_ref)
    assert seen.provider_ref is not None


@pytest.mark.parametrize("name", PROVIDERS)
@with_odd
@given(text=TEXTS.filter(is_name), is_escaped=st.booleans())
def test_an_id_that_is_accepted_is_asked_for_below_its_path_and_read_back(name, text, is_escaped):
    """No id leads the question elsewhere, whoever unquotes the path, and the answer is about that id."""
    key = "external_id" if name == "payfield" else "id"
    echo = Echo(lambda _sent: {key: text, "status": "pending"}, is_escaped=is_escaped)

    seen = read(PROVIDERS[name], asyncio.run(client_of(name, echo).fetch(KINDS[name], text)), Source.POLL)

    assert seen.provider_ref == text
    path = httpx2.URL(echo.urls[0]).raw_path.decode("ascii").partition("?")[0]
    assert path == urlsplit(echo.urls[0]).path, "the client sends another path than was meant"
    assert unquote(path.rpartition("/")[2]) == text
    assert not re.search(r"(^|[/\\])\.{1,2}([/\\]|$)", unquote(path)), "whoever unquotes first ends elsewhere"


@given(text=TEXTS)
def test_the_api_takes_exactly_what_may_be_a_name(text):
    """Its model refuses neither more nor less than the rule."""
    try:
        taken = TypeAdapter(PaymentName).validate_python(text, strict=True) == text
    except ValidationError:
        taken = False
    assert taken == is_name(text)


@pytest.mark.parametrize("echo", ["a\nb", "", "x" * 201, "\u2028"])
def test_an_echo_that_cannot_be_read_stands_for_the_name_that_was_sent(echo):
    """The answer to that very call is about the payment, even if its echo is odd."""
    body = json.dumps({"id": 1, "status": "pending", "external_id": echo}).encode()
    for source in (Source.CREATE, Source.POLL):
        assert read(PROVIDERS["payfield"], Answer(200, body, AT, "payin", "order-1"), source).provider_ref == "order-1"


@pytest.mark.parametrize("echo", ["e\u0301 1", "ORDER-1", "order"])
def test_what_a_create_call_made_is_called_as_its_answer_says(echo):
    """A provider that spells a name anew uses its own spelling from then on."""
    body = json.dumps({"id": 1, "status": "pending", "external_id": echo}).encode()

    seen = read(PROVIDERS["payfield"], Answer(200, body, AT, "payin", "order-1"), Source.CREATE)

    assert (seen.provider_ref, seen.reference) == (echo, echo)


def test_a_number_that_spells_the_name_is_its_echo_and_any_other_is_none():
    """An id of another type names nothing, unless it spells what was sent."""
    provider = PROVIDERS["payfield"]
    body = json.dumps({"id": 1, "status": "pending", "external_id": 17}).encode()

    assert read(provider, Answer(200, body, AT, "payin", "17"), Source.CREATE).provider_ref == "17"
    other = Statement(Source.CREATE, body, AT, kind="payin", ref="18", http_status=200)
    assert provider.parse(other).unreadable
