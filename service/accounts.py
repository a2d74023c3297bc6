"""The configured accounts as people are shown them, without their secrets, to the console and the command line."""

from collections.abc import Iterator
from typing import Any

from console.parts import Account, VerifyingKey
from receipted.wiring import Service, WiredAccount, budget_of


def accounts_of(service: Service) -> dict[str, Account]:
    """Every account, by name; of its secrets only where they are read from."""
    return {name: _account(service, account) for name, account in service.accounts.items()}


def _account(service: Service, account: WiredAccount) -> Account:
    return Account(
        name=account.name,
        provider=account.provider.name,
        environment=account.settings.environment,
        webhook_url=f"{service.settings.service.public_url}/webhooks/{account.name}",
        default_kind=account.provider.default_kind,
        lifecycles=account.provider.lifecycles,
        configuration=tuple(_flat(account.settings.model_dump(mode="json"))),
        keys=tuple(VerifyingKey(key.id, key.not_before, key.not_after) for key in account.settings.webhook_keys),
        budget=(budget.requests, budget.seconds) if (budget := budget_of(account.settings)) is not None else None,
        window=(account.settings.window_past_seconds, account.settings.window_future_seconds),
        authentication=account.provider.authentication,
    )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Settings as lines: the full name, and the value as it may be shown."""
    if isinstance(value, dict):
        for key, under in value.items():
            yield from _flat(under, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for at, under in enumerate(value):
            yield from _flat(under, f"{name}.{at}")
    else:
        yield name, "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
