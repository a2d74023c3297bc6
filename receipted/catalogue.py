"""The providers that an account may be at, and an account's provider put together."""

from collections.abc import Mapping
from typing import Final

from providers.alternative_payments.provider import AlternativePayments
from providers.banked.provider import Banked
from providers.contract import Account, Budget, Provider
from providers.payfield.provider import Payfield
from providers.stable_genius.provider import StableGenius
from receipted.settings_accounts import AccountSettings

#: By the name that `accounts.<name>.provider` uses.
PROVIDERS: Final[Mapping[str, type[Provider]]] = {
    provider.name: provider for provider in (AlternativePayments, StableGenius, Payfield, Banked)
}


def provider_of(account: AccountSettings, providers: Mapping[str, type[Provider]] = PROVIDERS) -> Provider:
    """The account's provider, as the account's options make it."""
    provider = providers[account.provider]
    return provider(provider.options_type.model_validate(account.options))


def account_of(name: str, account: AccountSettings, providers: Mapping[str, type[Provider]] = PROVIDERS) -> Account:
    """What the provider's client needs to know of the account, with its secrets revealed."""
    base_url = account.base_url or providers[account.provider].default_base_url
    return Account(name, base_url.rstrip("/"), account.revealed_secrets())


def budget_of(account: AccountSettings, providers: Mapping[str, type[Provider]] = PROVIDERS) -> Budget | None:
    """How fast the account may send: as configured, else as documented; None for no known limit."""
    return account.configured_budget() or providers[account.provider].budget
