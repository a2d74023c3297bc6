"""The built-in providers by name."""

from collections.abc import Mapping
from typing import Final

from providers.banked.provider import Banked
from providers.contract import Provider
from providers.engine.provider import built_in

AlternativePayments = built_in("alternative_payments")
StableGenius = built_in("stable_genius")
Payfield = built_in("payfield")

PROVIDERS: Final[Mapping[str, type[Provider]]] = {
    provider.name: provider for provider in (AlternativePayments, StableGenius, Payfield, Banked)
}
