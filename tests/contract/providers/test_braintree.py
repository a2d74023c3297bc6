"""Braintree's official SDK as oracle: it signs, verifies, answers challenges, reads our samples and builds requests."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

import pytest

from providers.catalogue import Braintree
from providers.contract import Account, CreateRequest, Delivery, HttpAnswer, MoneyRequest, Statement
from providers.engine import page
from providers.engine.pointers import InvalidPage
from providers.engine.provider import declared
from providers.engine.xml_decoding import xml_value
from providers.errors import DeliveryRejected, ProviderError
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Source
from tests.contract.providers.test_pages import body_of

sdk = pytest.importorskip("braintree")

NOW = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
PUBLIC, PRIVATE = "integration_public_key", "integration_private_key"
PROVIDER = Braintree.with_options(merchant_id="merchant1", public_key=PUBLIC)
KEYS = KeyRing((Key("k", PRIVATE.encode()),))


def gateway(private: str = PRIVATE, strategy: Callable[..., object] | None = None):
    configuration = sdk.Configuration(
        sdk.Environment.Sandbox, "merchant1", PUBLIC, private, http_strategy=strategy or sdk.util.http.Http
    )
    return sdk.BraintreeGateway(configuration)


def notified(kind: str, private: str = PRIVATE) -> dict[str, str]:
    told = gateway(private).webhook_testing.sample_notification(kind, "my_id")
    return {"bt_signature": told["bt_signature"], "bt_payload": told["bt_payload"].decode()}


def is_accepted(form: dict[str, str]) -> bool:
    try:
        PROVIDER.verify(Delivery(urlencode(form).encode(), ()), KEYS, Window(), NOW)
    except DeliveryRejected:
        return False
    return True


def kinds() -> list[str]:
    return sorted(word for name, word in vars(sdk.WebhookNotification.Kind).items() if name[0] != "_")


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_what_the_sdk_signs_is_accepted_and_read(kind):
    """Every kind of notification leads to a statement, a hint or a note; what is changed is rejected."""
    form = notified(kind)
    assert is_accepted(form)
    for changed in (
        {**form, "bt_payload": form["bt_payload"].replace("\n", "") + "\n"},
        {**form, "bt_payload": form["bt_payload"] + "\n"},
        {**form, "bt_signature": form["bt_signature"].replace(PUBLIC, "another")},
        notified(kind, "another"),
        {"bt_payload": form["bt_payload"]},
    ):
        assert not is_accepted(changed)
    reading = PROVIDER.parse(Statement(Source.WEBHOOK, urlencode(form).encode(), NOW))
    assert not reading.unreadable
    assert reading.observations or reading.hints or reading.note


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_a_signature_counts_whatever_stands_beside_it():
    """One for each public key, of which ours is one; a form with two signatures says none."""
    form = notified("transaction_settled")
    others = f"other|{'0' * 40}&broken&{form['bt_signature']}&more|zz"
    assert is_accepted({**form, "bt_signature": others})
    twice = Delivery(f"bt_signature=x&{urlencode(form)}".encode(), ())
    with pytest.raises(DeliveryRejected):
        PROVIDER.verify(twice, KEYS, Window(), NOW)
    mixed = Delivery(f"{urlencode(form)}&bt_payload={'e30='}".encode(), ())
    with pytest.raises(DeliveryRejected):
        PROVIDER.verify(mixed, KEYS, Window(), NOW)


@pytest.mark.parametrize("asked", ["a" * 20, "0123456789abcdef" * 2, "f00dfeed" * 3])
def test_a_challenge_is_answered_as_the_sdk_answers_it(asked):
    """Only what looks like a challenge is signed, and only with a key that is active."""
    assert PROVIDER.challenge({"bt_challenge": asked}, KEYS, NOW) == gateway().webhook_notification.verify(asked)
    for query in ({}, {"bt_challenge": asked[:19]}, {"bt_challenge": f"{asked} "}, {"bt_challenge": "A" * 20}):
        assert PROVIDER.challenge(query, KEYS, NOW) is None
    assert PROVIDER.challenge({"bt_challenge": asked}, KeyRing(()), NOW) is None


def words(enum: type) -> set[str]:
    return {word for name, word in vars(enum).items() if name[0] != "_"}


def test_every_status_of_the_sdks_enums_has_a_meaning():
    """Those of transactions and disputes, no fewer and no more; every event rule names kinds that there are."""
    page = PROVIDER.page
    assert set(page.kind["sale"].states) == words(sdk.Transaction.Status)
    parts = [rule.part for rule in page.events.rule if rule.part is not None] + page.kind["sale"].part
    assert [set(part.states) for part in parts if part.kind == "dispute"] == [words(sdk.Dispute.Status)] * 2
    refund = page.calls.refund
    assert refund is not None
    assert refund.part is not None
    assert set(refund.part.states) == words(sdk.Transaction.Status)
    named: list[str] = []
    for rule in page.events.rule:
        wanted = rule.when["/notification/kind"]
        named += wanted if isinstance(wanted, list) else [] if str(wanted).startswith("~") else [str(wanted)]
    assert set(named) <= set(kinds())


def answers() -> Iterator[tuple[str, Source, bytes]]:
    for sample in PROVIDER.page.sample:
        if sample.by != "webhook":
            yield sample.file, Source(sample.by), body_of(Braintree, sample)


@pytest.mark.parametrize(("file", "source", "body"), list(answers()))
def test_the_sdks_models_read_the_samples_as_the_page_does(file, source, body):
    """Id, status, amount, currency, reference and disputes."""
    told = sdk.util.xml_util.XmlUtil.dict_from_xml(body)["transaction"]
    transaction = sdk.Transaction(gateway(), told)
    asked = "ca3xjw5t"
    (seen,) = PROVIDER.parse(Statement(source, body, NOW, kind="sale", ref=asked, http_status=200)).observations
    if source is Source.REFUND:
        (part,) = seen.parts
        assert (part.name, part.amount_minor) == (transaction.id, int(transaction.amount * 100)), file
        assert transaction.refunded_transaction_id == seen.provider_ref
        return
    theirs = (transaction.id, transaction.status, int(transaction.amount * 100), transaction.currency_iso_code)
    assert (seen.provider_ref, seen.status, seen.amount_minor, seen.currency) == theirs, file
    assert seen.reference == transaction.order_id
    assert [part.name for part in seen.parts] == [dispute.id for dispute in transaction.disputes]


@pytest.mark.parametrize("file", ["event_transaction_settled.txt", "event_dispute_lost.txt"])
def test_the_sdk_verifies_the_samples_of_deliveries(file):
    """They are what its own test gateway sends, with another time."""
    form = dict(parse_qsl((Braintree.source.folder / "samples" / file).read_text()))
    notification = gateway().webhook_notification.parse(form["bt_signature"], form["bt_payload"])
    assert notification.kind == file.removeprefix("event_").removesuffix(".txt")


def test_a_refund_is_no_payment():
    """A transaction of type credit, asked about by its id, must not give goods."""
    body = (Braintree.source.folder / "samples" / "refund_settled.xml").read_bytes()
    reading = PROVIDER.parse(Statement(Source.POLL, body, NOW, kind="sale", ref="refund_1", http_status=200))
    assert reading.unreadable == "the answer is about another kind than was asked about"


# -- requests


class Recorded:
    """A line that keeps the requests that it is given."""

    def __init__(self, status: int = 201, body: bytes = b"<transaction><id>t1</id></transaction>") -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status, self.body = status, body

    async def turn(self) -> None:
        """Any time is right."""

    async def send(self, method, url, *, headers, content=b""):
        self.requests.append((method, url, dict(headers), content))
        return HttpAnswer(self.status, {}, self.body, NOW)

    async def pause(self, seconds: float) -> None:
        """Nobody waits."""

    def client(self):
        account = Account("a", "https://api.sandbox.braintreegateway.com", {"private_key": PRIVATE})
        return PROVIDER.client(account, self, lambda: NOW)


def test_our_requests_are_those_that_the_sdk_makes():
    """Method, path, what the XML says, and the headers that matter."""
    theirs: list[tuple[str, str, dict[str, str], str]] = []

    class Strategy(sdk.util.http.Http):
        def http_do(self, http_verb, path, headers, request_body):
            theirs.append((http_verb, path, headers, request_body or ""))
            return 201, "<transaction><id>t1</id><amount>1</amount></transaction>"

    api = gateway(strategy=Strategy).transaction
    wish = {"payment_method_nonce": "nonce-1", "amount": "10.99", "order_id": "order 17 <ä>"}
    api.sale({**wish, "options": {"submit_for_settlement": True}})
    api.find("t1")
    api.void("t1")
    api.submit_for_settlement("t1", "5.00")
    api.refund("t1", "2.50")

    line = Recorded()
    ours = line.client()
    extra = {"transaction": {"payment-method-nonce": "nonce-1"}}
    asyncio.run(ours.create(CreateRequest("sale", 1099, "USD", "order 17 <ä>", "key-1", extra=extra)))
    asyncio.run(ours.fetch("sale", "t1"))
    asyncio.run(ours.cancel("sale", "t1"))
    asyncio.run(ours.capture(MoneyRequest("sale", "t1", 500, "USD", "key-2")))
    asyncio.run(ours.refund(MoneyRequest("sale", "t1", 250, "USD", "key-3")))

    assert len(line.requests) == len(theirs) == 5
    for mine, official in zip(line.requests, theirs, strict=True):
        assert (mine[0], mine[1].removesuffix("/")) == (official[0], official[1].replace(":443", "").removesuffix("/"))
        assert _said(mine[3]) == _said(str(official[3]).replace("_", "-").encode())
        given = {name.lower(): value for name, value in official[2].items()}
        assert mine[2]["authorization"].split() == given["authorization"].decode().split()
        assert (mine[2]["accept"], mine[2]["x-apiversion"]) == (given["accept"], given["x-apiversion"])
        assert mine[2].get("content-type", "application/xml") == given["content-type"]


def _said(body: bytes) -> object:
    return xml_value(body) if body else None


def test_a_refusal_is_named_by_its_code():
    """A 422 has the message, and the code of the first fault."""
    body = (
        b"<api-error-response><errors><errors type='array'/><transaction><errors type='array'><error>"
        b"<code>91504</code><attribute type='symbol'>base</attribute><message>Transaction can only be voided</message>"
        b"</error></errors></transaction></errors><message>Transaction can only be voided</message>"
        b"</api-error-response>"
    )
    with pytest.raises(ProviderError) as refused:
        asyncio.run(Recorded(422, body).client().cancel("sale", "t1"))
    assert (refused.value.type, refused.value.provider_code) == ("conflict_error", "91504")
    assert "Transaction can only be voided" in str(refused.value)
    with pytest.raises(ProviderError) as refused:
        asyncio.run(Recorded(404, b"").client().fetch("sale", "t1"))
    assert refused.value.type == "not_found_error"


WRONG = {
    "another field is read than is signed": (
        'field = "bt_payload"\ntype',
        'field = "bt_event"\ntype',
        "read from elsewhere",
    ),
    "the form itself is read": ('format = "xml"\nfield = "bt_payload"', 'format = "form"', "read from elsewhere"),
    "a challenge is answered without a signature": ("|{signature}", "", "has the {signature} in it"),
    "a challenge of any form": ('pattern = "[a-f0-9]{20,32}"', 'pattern = "("', "is no regular expression"),
    "a key of another form": ('key = "sha1"', 'key = "md5"', "is no form of a key"),
    "nothing is signed": ('signed = ["{field:bt_payload}"]', 'signed = ["x"]', "the body is not signed"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_page_whose_form_is_not_what_is_signed_is_refused(wrong):
    """What is read must be what a key proves."""
    was, becomes, told = WRONG[wrong]
    text = Braintree.source.text
    assert was in text
    with pytest.raises(InvalidPage) as refused:
        declared(page.parse(text.replace(was, becomes, 1), "provider.toml", Braintree.source.folder))
    assert told in refused.value.message
