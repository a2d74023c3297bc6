"""Whether a provider has a call to cancel is known before anything is asked or sent."""

import asyncio
from datetime import UTC, datetime

import pytest

from providers.alternative_payments.options import AlternativePaymentsOptions
from providers.alternative_payments.provider import AlternativePayments
from providers.contract import Account
from providers.errors import ProviderError, UnsupportedByProvider
from tests.support.builders import PROVIDERS

WITH_A_PATH = AlternativePayments(AlternativePaymentsOptions(cancel_path="/payment/request/{id}/cancel"))
CASES = [
    pytest.param(provider, kind, id=f"{name}-{kind}")
    for name, provider in {**PROVIDERS, "alternative_payments_with_a_path": WITH_A_PATH}.items()
    for kind in provider.lifecycles
]


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


@pytest.mark.parametrize(("provider", "kind"), CASES)
def test_check_cancel_says_whether_cancel_has_a_call(provider, kind):
    """It raises exactly where cancel() does, with the same words, and neither of them sends anything then."""
    line = Dead()
    account = Account("a", "https://provider.example", dict.fromkeys(provider.secret_names, "0123456789abcdef"))
    client = provider.client(account, line, lambda: datetime.now(UTC))

    with pytest.raises((UnsupportedByProvider, ProviderError)) as told:
        asyncio.run(client.cancel(kind, "ref"))

    if isinstance(told.value, UnsupportedByProvider):
        with pytest.raises(UnsupportedByProvider) as known:
            client.check_cancel(kind)
        assert known.value.message == told.value.message
        assert line.wanted == 0
    else:
        client.check_cancel(kind)
        assert line.wanted == 1
