"""What a merchant's program or an operator says is kept as it was said, or refused by name; on both databases alike."""

import asyncio

import pytest

from providers.errors import InsecureUrl
from service.errors import InvalidCommand
from statemachine.errors import ServiceError
from storage import inbox, payments
from storage.errors import NotFound
from storage.ids import new_id
from tests.property.cancel_world import ACCOUNT, Till

UNKEPT = {"nul": "a\x00b", "surrogate": "\udc80", "long": "x" * 3000}

#: What could be kept, and is no name of a payment.
UNNAMED = {
    **UNKEPT,
    "newline": "a\nb",
    "tab": "a\tb",
    "escape": "\x1b[31m",
    "blank": " ",
    "wide blank": "\u3000",
    "empty": "",
    "here": ".",
    "above": "..",
    "from above": "a/../b",
    "line separator": "a\u2028b",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def till(request, template, tmp_path):
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    made = Till(template, tmp_path, database=server and server.cleaned())
    yield made
    made.close()


def messages(till):
    with till.service.database.read() as unit:
        return inbox.find(unit)


@pytest.mark.parametrize(
    ("param", "text"),
    [*(("reference", text) for text in UNNAMED.values()), *(("return_url", text) for text in UNKEPT.values())],
    ids=[*UNNAMED, *(f"{name} url" for name in UNKEPT)],
)
def test_a_wish_that_cannot_be_kept_or_read_back_is_refused_before_anything_is_done(till, param, text):
    wish = {"amount_minor": 450, "currency": "USD", "reference": "order-1", param: text}
    with pytest.raises(InvalidCommand) as refused:
        asyncio.run(till.commands().create(ACCOUNT, **wish))

    assert refused.value.param == param
    assert (messages(till), till.genius.calls) == ([], [])


@pytest.mark.parametrize("text", UNNAMED.values(), ids=UNNAMED)
def test_a_ref_that_cannot_be_kept_or_read_back_is_not_asked_about(till, text):
    with pytest.raises(InvalidCommand):
        asyncio.run(till.commands().track(ACCOUNT, text))

    assert till.genius.calls == []


@pytest.mark.parametrize("text", [*UNKEPT.values(), "x" * 129], ids=[*UNKEPT, "longer than the column"])
@pytest.mark.parametrize("param", ["reason", "by"])
def test_words_of_an_operator_that_cannot_be_kept_are_refused(till, param, text):
    payment = till.a_payment()
    (message,) = [m for m in messages(till) if m.payment_id == payment.id]
    said = {"reason": "seen at the bank", "by": "ada", param: text}
    if param == "reason" and len(text) == 129:
        assert asyncio.run(till.commands().resolve(payment.id, state="confirmed", **said)).state == "confirmed"
        return
    for call in (
        lambda: till.commands().resolve(payment.id, state="confirmed", **said),
        lambda: till.commands().replay(message.id, **said),
        lambda: till.commands().redrive(new_id(), **said),
    ):
        with pytest.raises(InvalidCommand) as refused:
            till.run(call())
        assert refused.value.param == param
    assert till.get(payment.id).state == "awaiting_payment"


@pytest.mark.parametrize("text", ["nonsense", "\x00", "\udc80", "x" * 3000])
def test_an_id_that_is_none_is_not_found(till, text):
    said = {"reason": "why", "by": "ada"}
    for call in (
        lambda: till.commands().get(text),
        lambda: till.commands().refresh(text),
        lambda: till.commands().cancel(text),
        lambda: till.commands().resolve(text, state="confirmed", **said),
        lambda: till.commands().replay(text, **said),
        lambda: till.commands().redrive(text, **said),
    ):
        with pytest.raises(NotFound):
            till.run(call())


@pytest.mark.parametrize("reference", ["é" * 200, "😀" * 200, "%s'; --", "\u202eorder", " order ", "a\u00a0b", "a..b"])
def test_any_other_reference_is_kept_as_it_is(till, reference):
    """The provider of these tests makes nothing: the wish is kept all the same."""
    wish = {"amount_minor": 450, "currency": "USD", "reference": reference}
    with pytest.raises((ServiceError, AssertionError)):
        asyncio.run(till.commands().create(ACCOUNT, **wish))

    with till.service.database.read() as unit:
        assert [payment.reference for payment in payments.find(unit)] == [reference]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "http://shop.example/", "https://shop.example/\n", "", "/thanks"], ids=ascii
)
def test_a_page_that_no_payer_may_be_sent_to_is_refused_before_anything_is_done(till, url):
    wish = {"amount_minor": 450, "currency": "USD", "reference": "order-1", "return_url": url}
    with pytest.raises(InsecureUrl) as refused:
        asyncio.run(till.commands().create(ACCOUNT, **wish))

    assert refused.value.param == "return_url"
    assert (messages(till), till.genius.calls) == ([], [])
