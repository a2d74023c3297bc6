"""What a provider says of its scheme, in words, is what its verifier demands."""

import pytest

from providers.contract import Delivery
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from tests.support.builders import PROVIDERS
from tests.support.clock import START

_KEYS = KeyRing((Key("k", b"a-secret-of-enough-bytes"),))


def reason(provider, **headers):
    """Why a delivery with these headers is not believed."""
    given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    with pytest.raises(DeliveryRejected) as rejected:
        provider.verify(Delivery(b"{}", given), _KEYS, Window(), START)
    return rejected.value.reason


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_the_headers_that_are_named_are_those_that_are_looked_at(provider):
    """Without the signature's header it is missing, with it it is not; likewise the signed time's."""
    scheme = provider.authentication
    assert scheme is not None
    assert scheme.words
    signed = {scheme.header: "x"}

    assert reason(provider) == "signature_missing"
    assert reason(provider, **signed) != "signature_missing"
    if scheme.time_header not in (None, scheme.header):
        assert reason(provider, **signed) == "timestamp_missing"
        assert reason(provider, **signed, **{scheme.time_header: "0"}) != "timestamp_missing"
