"""BTCPay Server: invoices paid late, over and under, and the requests of its OpenAPI description."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from providers.catalogue import BTCPayServer
from providers.contract import Account, CreateRequest, HttpAnswer, Statement
from providers.errors import ProviderError
from statemachine.decide import decide
from statemachine.observation import PaymentView
from statemachine.phases import FULFILMENT_EFFECTS, Outcome, PartialCapture, Review, Source

NOW = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
LIFECYCLE = BTCPayServer.lifecycles["invoice"]
STORE = "9DMyti5DsvJRkmQnkeqdQ15mUPZDdmBtUb6j45MAGJo2"
PROVIDER = BTCPayServer.with_options(store_id=STORE)

#: swagger.template.invoices.json: InvoiceStatus, and InvoiceAdditionalStatus with what each may stand beside.
STATUSES = {"New", "Processing", "Expired", "Invalid", "Settled"}
ADDITIONAL = {"None", "PaidLate", "PaidPartial", "Marked", "Invalid", "PaidOver"}


def seen(sample, **changes):
    body = json.loads((BTCPayServer.source.folder / "samples" / f"{sample}.json").read_bytes()) | changes
    statement = Statement(Source.POLL, json.dumps(body).encode(), NOW, kind="invoice", ref=body["id"], http_status=200)
    (one,) = PROVIDER.parse(statement).observations
    return one


def decided(sample, state, *, asked=615, **view):
    return decide(LIFECYCLE, PaymentView(state, asked, "EUR", **view), seen(sample), NOW)


def gives_goods(decision):
    return any(due.effect in FULFILMENT_EFFECTS for due in decision.effects)


@pytest.mark.parametrize("status", sorted(STATUSES))
@pytest.mark.parametrize("additional", sorted(ADDITIONAL))
def test_every_status_with_every_additional_one_has_a_meaning(status, additional):
    """Nothing that the API can say is parked, and goods follow what is settled alone."""
    one = seen("invoice_new", status=status, additionalStatus=additional)
    assert LIFECYCLE.knows(one.status)
    assert (LIFECYCLE.phase(one.status) == "paid") is (status == "Settled")


def test_what_is_paid_in_time_and_in_full_gives_goods_once_it_is_confirmed():
    assert not gives_goods(decided("invoice_processing", "New"))
    decision = decided("invoice_settled", "Processing")
    assert (decision.outcome, decision.review) == (Outcome.ADVANCED, None)
    assert gives_goods(decision)


@pytest.mark.parametrize("state", ["Expired", "Expired (paid partial)"])
def test_what_is_paid_late_waits_for_a_person(state):
    """The money came after the end, and the server does not settle it by itself."""
    decision = decided("invoice_expired_paid_late", state)
    assert (decision.to_state, decision.review) == ("Expired (paid late)", Review.LATE_MOVE)
    assert not gives_goods(decision)


def test_what_was_paid_late_gives_goods_once_the_merchant_marks_it():
    paid = seen("invoice_settled_marked", paidAmount="6.15")
    decision = decide(LIFECYCLE, PaymentView("Expired (paid late)", 615, "EUR"), paid, NOW)
    assert (decision.to_state, decision.review) == ("Settled", None)
    assert gives_goods(decision)


def test_what_is_paid_over_waits_for_a_person_unless_the_account_tolerates_it():
    decision = decided("invoice_paid_over", "Processing")
    assert (decision.review, gives_goods(decision)) == (Review.AMOUNT_MISMATCH, False)
    assert "7.00 EUR, 6.15 EUR was asked for" in decision.reason
    assert gives_goods(decided("invoice_paid_over", "Processing", tolerance_minor=85))


def test_what_is_paid_under_gives_no_goods():
    """Neither while it is open nor when it ends; marked by hand, it waits unless the account takes parts."""
    assert decided("invoice_new_paid_partial", "New").effects == ()
    ended = decided("invoice_expired_paid_partial", "New")
    assert (ended.to_state, gives_goods(ended)) == ("Expired (paid partial)", False)
    marked = decided("invoice_settled_marked", "Expired (paid partial)")
    assert (marked.review, gives_goods(marked)) == (Review.AMOUNT_MISMATCH, False)
    accepted = decided("invoice_settled_marked", "Expired (paid partial)", partial_capture=PartialCapture.ACCEPT)
    assert gives_goods(accepted)


def test_a_replaced_payment_opens_the_invoice_again():
    assert decided("invoice_new", "Processing").to_state == "New"


class Server:
    """The API as swagger.template.invoices.json describes it, with the invoices newest first."""

    def __init__(self, count=0, status=200, body=b"{}"):
        self.requests, self.status, self.body = [], status, body
        self.invoices = [{"id": f"inv{number}", "status": "New"} for number in range(count)]

    async def turn(self):
        """Any time is right."""

    async def pause(self, seconds):
        raise AssertionError("nobody asked to wait")

    async def send(self, method, url, *, headers, content=b""):
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self.requests.append((method, parts.path, query, json.loads(content or b"null")))
        assert headers["authorization"] == "token a-key"
        body = self.body
        if method == "GET" and parts.path.endswith("/invoices"):
            skip, take = int(query.get("skip", 0)), int(query["take"])
            body = json.dumps(self.invoices[::-1][skip : skip + take]).encode()
        return HttpAnswer(self.status, {}, body, NOW)

    def client(self):
        account = Account("a", "https://btcpay.example.com", {"api_key": "a-key"})
        return PROVIDER.client(account, self, lambda: NOW)


def test_an_invoice_is_created_with_the_reference_as_its_order():
    server = Server()
    wish = CreateRequest("invoice", 615, "EUR", "order-17", "key-1", return_url="https://shop.example/thanks")
    asyncio.run(server.client().create(wish))
    fields = {
        "amount": "6.15",
        "currency": "EUR",
        "metadata": {"orderId": "order-17"},
        "checkout": {"redirectURL": "https://shop.example/thanks"},
    }
    assert server.requests == [("POST", f"/api/v1/stores/{STORE}/invoices", {}, fields)]
    assert not server.client().is_create_idempotent


def test_an_invoice_is_fetched_and_marked_invalid():
    server = Server()
    asyncio.run(server.client().fetch("invoice", "inv1"))
    asyncio.run(server.client().cancel("invoice", "inv1"))
    path = f"/api/v1/stores/{STORE}/invoices/inv1"
    assert server.requests == [("GET", path, {}, None), ("POST", f"{path}/status", {}, {"status": "Invalid"})]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_the_list_is_read_by_offset_to_its_end(count):
    """Each invoice once, and one page more than is full."""
    server = Server(count)
    client, found, position = server.client(), [], None
    while True:
        page = asyncio.run(client.list_page(NOW - timedelta(days=1), NOW, position))
        assert page.fault == ""
        found += json.loads(page.answer.body)
        position = page.next
        if position is None:
            break
    assert [each["id"] for each in found] == [each["id"] for each in server.invoices[::-1]]
    _, path, query, _ = server.requests[0]
    assert path == f"/api/v1/stores/{STORE}/invoices"
    begin, end = str(int(NOW.timestamp()) - 86400), str(int(NOW.timestamp()))
    assert query == {"includeArchived": "true", "startDate": begin, "endDate": end, "take": "100"}


def test_the_webhook_is_registered_for_events_of_invoices():
    """Those of swagger.template.webhooks.json, with the key that verifies them."""
    server = Server()
    asyncio.run(server.client().register_webhook("https://shop.example/webhooks/btcpay", secret="a-secret"))
    ((method, path, _, fields),) = server.requests
    assert (method, path) == ("POST", f"/api/v1/stores/{STORE}/webhooks")
    assert (fields["url"], fields["secret"]) == ("https://shop.example/webhooks/btcpay", "a-secret")
    assert fields["authorizedEvents"]["everything"] is False
    assert all(event.startswith("Invoice") for event in fields["authorizedEvents"]["specificEvents"])


REFUSALS = {
    "one fault": (404, {"code": "invoice-not-found", "message": "The invoice was not found"}, "not_found_error", None),
    "faults of fields": (
        422,
        [{"path": "Status", "message": "Status can only be marked to invalid or settled within certain conditions."}],
        "conflict_error",
        "Status",
    ),
    "another field": (
        422,
        [{"path": "Amount", "message": "The amount should be 0 or more."}],
        "invalid_request_error",
        "Amount",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_named_as_an_object_or_a_list_tells_it(name):
    status, body, type_, param = REFUSALS[name]
    server = Server(status=status, body=json.dumps(body).encode())
    with pytest.raises(ProviderError) as refused:
        asyncio.run(server.client().cancel("invoice", "inv1"))
    assert (refused.value.type, refused.value.param) == (type_, param)
    first = body[0] if isinstance(body, list) else body
    assert first["message"] in str(refused.value)
