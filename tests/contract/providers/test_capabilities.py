"""What a provider says that it can is what its client does, and nothing else is ever sent."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from providers.banked.options import BankedOptions
from providers.banked.provider import Banked
from providers.catalogue import AlternativePayments, StableGenius
from providers.contract import Account, Capability, Client, CreateRequest, MoneyRequest
from providers.errors import ProviderError, UnsupportedByProvider
from tests.support.builders import PROVIDERS, Unaskable

NOW = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)
EVERY = {
    **PROVIDERS,
    "alternative_payments_with_a_path": AlternativePayments.with_options(
        cancel_path="/payment/request/{id}/cancel", events_path=None
    ),
    "banked_with_a_list": Banked(BankedOptions(list_path="/v3/payins", list_kind="payin")),
    "stable_genius_with_registration": StableGenius.with_options(webhook_path="/webhooks"),
    "unaskable": Unaskable.with_options(),
}
EXTRA = {
    "payfield": {"merchant_user_id": "u", "merchant_user_ip": "192.0.2.1", "card_number": "4111111111111111"},
    "banked": {
        "success_url": "https://shop.example/ok",
        "error_url": "https://shop.example/no",
        "line_items": [{"name": "a", "amount": 450, "currency": "GBP", "quantity": 1}],
        "payment_session_id": "ps_1",
        "checkout_config": {"redirect_url": "https://shop.example/thanks"},
    },
}


class Dead:
    """A line that notes that somebody wants to send, and is dead."""

    def __init__(self):
        self.wanted = 0

    async def turn(self):
        self.wanted += 1
        raise ProviderError("the line is dead")

    async def send(self, method, url, *, headers, content=b""):
        raise AssertionError("nobody sends without a turn")

    async def pause(self, seconds):
        raise AssertionError("nobody has answered")


def create(provider, kind):
    extra = EXTRA.get(provider.name, {})
    request = CreateRequest(kind, 450, "GBP", "order 1", "key-1", "https://shop.example/return/t", extra=extra)
    return lambda client: client.create(request)


def moved(kind):
    return MoneyRequest(kind, "ref", 150, "GBP", "key-1")


CALLS = {
    Capability.CREATE: create,
    Capability.ASK: lambda _provider, kind: lambda client: client.fetch(kind, "ref"),
    Capability.CANCEL: lambda _provider, kind: lambda client: client.cancel(kind, "ref"),
    Capability.CAPTURE: lambda _provider, kind: lambda client: client.capture(moved(kind)),
    Capability.REFUND: lambda _provider, kind: lambda client: client.refund(moved(kind)),
    Capability.LIST: lambda _provider, _kind: lambda client: client.list_page(NOW - timedelta(days=1), NOW, None),
    Capability.REGISTER: lambda _provider, _kind: (
        lambda client: client.register_webhook("https://shop.example/webhooks/a", secret_key="0123456789abcdef")
    ),
}
OF_THE_ACCOUNT = {Capability.LIST, Capability.REGISTER}
CASES = [
    pytest.param(provider, call, kind, id=f"{name}-{call}-{kind}")
    for name, provider in EVERY.items()
    if name != "unaskable"
    for call in CALLS
    for kind in provider.lifecycles
]


@pytest.mark.parametrize(("provider", "call", "kind"), CASES)
def test_what_is_declared_is_sent_and_nothing_else_is(provider, call, kind):
    """A declared call takes its turn to send; any other is refused before that, by the client too."""
    line = Dead()
    account = Account("a", "https://provider.example", dict.fromkeys(provider.secret_names, "0123456789abcdef"))
    client = provider.client(account, line, lambda: NOW)

    with pytest.raises((UnsupportedByProvider, ProviderError)) as told:
        asyncio.run(CALLS[call](provider, kind)(client))

    can = provider.can(call, None if call in OF_THE_ACCOUNT else kind)
    assert (type(told.value) is ProviderError, line.wanted > 0) == (can, can), told.value.message


@pytest.mark.parametrize("provider", EVERY.values(), ids=EVERY)
def test_capabilities_name_kinds_of_the_provider(provider):
    """Each kind has a lifecycle, the default one can be created, and every call that is missing has words."""
    for call, kinds in provider.capabilities().items():
        assert kinds <= set(provider.lifecycles), call
    assert provider.can(Capability.CREATE, provider.default_kind)
    for call in Capability:
        if provider.can(call):
            provider.require(call)
            continue
        with pytest.raises(UnsupportedByProvider, match=provider.name):
            provider.require(call)


def test_a_client_without_a_call_refuses_it():
    """What a client does not override is refused and sends nothing."""
    bare = Client()
    for call, make in CALLS.items():
        with pytest.raises(UnsupportedByProvider):
            asyncio.run(make(PROVIDERS["stable_genius"], "payment_intent")(bare)), call


def test_where_no_call_registers_a_webhook_a_person_reads_what_to_do():
    """A refusal names the call and the kind, and where our URL is registered by hand."""
    with pytest.raises(UnsupportedByProvider, match="dashboard"):
        PROVIDERS["stable_genius"].require(Capability.REGISTER)
    with pytest.raises(UnsupportedByProvider, match="cancel for a payin"):
        PROVIDERS["banked"].require(Capability.CANCEL, "payin")
