"""Plan of the demonstration: faults, accounts, orders and settings.

Equal seeds give equal plans.
"""

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.config import Faults, Payers, SandboxConfig
from sandbox.limits import scaled_window

#: Every fault of the sandbox, each often enough to be seen many times in 400 payments.
FAULTS = Faults(
    lose=0.15,
    duplicate=0.15,
    delay=0.15,
    delay_seconds=60.0,
    reorder=0.10,
    corrupt_signature=0.08,
    stale_timestamp=0.05,
    forge=0.08,
    replay_other_content=0.05,
    late_money=0.25,
    api_429=0.03,
    api_500=0.03,
    api_502_503_504=0.03,
    api_timeout=0.01,
    api_timeout_seconds=2.0,
    api_slow=0.05,
    api_slow_seconds=0.2,
)

SHOP_SECRET = "whsec_ZGVtb25zdHJhdGlvbi1vZi1yZWNlaXB0ZWQtMDAwMQ=="  # noqa: S105 - of the demonstration's own shop


@dataclass(frozen=True, slots=True)
class Order:
    """One payment that the shop orders."""

    account: str
    kind: str
    amount_minor: int
    currency: str
    reference: str
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """One account of the demonstration."""

    name: str
    provider: str  #: of Receipted
    sandbox: str  #: the sandbox's name of the same
    base_path: str


ACCOUNTS = (
    DemoAccount("alternative", "alternative_payments", "alternative_payments", "/alternative-payments"),
    DemoAccount("genius", "stable_genius", "stable_genius", "/stable-genius/v1"),
    DemoAccount("payfield", "payfield", "payfield", "/payfield"),
    DemoAccount("payfield-old", "payfield", "payfield_old", "/payfield-old"),
    DemoAccount("banked", "banked", "banked", "/banked"),
    DemoAccount("banked-v3", "banked", "banked", "/banked"),
)

#: The providers, by the names that accounts give them.
PROVIDERS = tuple(dict.fromkeys(account.provider for account in ACCOUNTS))

_SHOPPER = {"merchant_user_id": "shopper-1", "merchant_user_ip": "192.0.2.7"}
_PAYEE = {"name": "The Shop", "account_number": "12345678", "sort_code": "010203"}

#: (account, kind, currency, fields of the provider's own, share of the orders in percent)
_ORDER_MIX: tuple[tuple[str, str, str, Mapping[str, object], int], ...] = (
    ("alternative", "payment_request", "USD", {}, 100),
    ("genius", "payment_intent", "USD", {"merchant_id": "mer_sandbox"}, 100),
    ("payfield", "payin", "BDT", _SHOPPER, 45),
    (
        "payfield",
        "payout",
        "BDT",
        {**_SHOPPER, "card_number": "01700000000", "paymentData": {"wallet_provider": "bkash"}},
        20,
    ),
    ("payfield-old", "payin", "INR", _SHOPPER, 35),
    ("banked", "payment_session", "GBP", {"payee": _PAYEE}, 60),
    (
        "banked-v3",
        "payin",
        "AUD",
        {"bank_account_id": "ba_sandbox", "ultimate_creditor": {"identity_type": "BUSINESS", "name": "The Shop"}},
        40,
    ),
)


#: References of orders that wait for a person's click begin so.
CLICK_PREFIX = "CLICK"


def orders(count: int, seed: int, prefix: str = "ORD") -> list[Order]:
    """Return `count` orders over all providers, in a mixed order."""
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
    made = list(_orders(count, rng, prefix))
    rng.shuffle(made)
    return made


def _orders(count: int, rng: random.Random, prefix: str) -> Iterator[Order]:
    total = sum(share for *_, share in _ORDER_MIX)
    number = 0
    for position, (account, kind, currency, extra, share) in enumerate(_ORDER_MIX):
        last = position == len(_ORDER_MIX) - 1
        for _ in range(count - number if last else round(count * share / total)):
            number += 1
            yield Order(account, kind, rng.randrange(500, 50_000), currency, f"{prefix} {number:05d}", extra)


def sandbox_config(seed: int, speed: float, lose_all: Collection[str] = ()) -> SandboxConfig:
    """Return the sandbox's configuration.

    Its simulated payers leave the orders of CLICK_PREFIX to people. Of the providers in `lose_all` every webhook and
    callback is lost, and of the others as many as FAULTS says.
    """
    lost = dict.fromkeys(account.sandbox for account in ACCOUNTS if account.provider in lose_all)
    return SandboxConfig(
        seed=seed,
        speed=speed,
        faults=FAULTS,
        lose_all=tuple(lost),
        payers=Payers(leave=CLICK_PREFIX, pay=0.72, decline=0.10, cancel=0.09, expire=0.09),
        delivery_timeout_seconds=5.0,
    )


def settings_data(
    config: SandboxConfig, *, database: str, sandbox_url: str, shop_url: str, port: int, patience_speed: float
) -> dict[str, Any]:
    """Return the settings for receipted.toml, with faster polling.

    The poller's waits are divided by `patience_speed`.
    """
    speed = patience_speed
    return {
        "service": {
            "database": database,
            "public_url": f"http://127.0.0.1:{port}",
            "listen_port": port,
            "development": True,
            "unverified_per_minute": 100_000,
            "quarantine_per_account": 100_000,
            "token_keys": [{"id": "demo", "secret": "plain:a-token-key-of-the-demonstration"}],
            "audit_keys": [{"id": "demo", "secret": "plain:an-audit-key-of-the-demonstration"}],
        },
        "log": {"level": "error"},
        "poller": {
            "worth_seconds": 2 / speed,
            "soonest_seconds": 30 / speed,
            "longest_seconds": 600 / speed,
            "retry_first_seconds": 15 / speed,
            "retry_longest_seconds": 600 / speed,
            "paid_every_seconds": 900 / speed,
            "late_checks_seconds": [60 / speed, 300 / speed, 900 / speed],
            "create_grace_seconds": 20,
            "concurrency": 8,
        },
        "worker": {"tick_seconds": 0.1},
        "fulfilment": {"schedule_seconds": [0.2, 0.5, 1, 1, 2, 2, 4, 4, 8], "concurrency": 16},
        "sinks": [
            {"name": "shop", "kind": "http", "url": f"{shop_url}/fulfilment", "secrets": [f"plain:{SHOP_SECRET}"]}
        ],
        "accounts": {account.name: _account(account, config, sandbox_url) for account in ACCOUNTS},
    }


def _account(account: DemoAccount, config: SandboxConfig, sandbox_url: str) -> dict[str, Any]:
    secrets, webhook_key = _credentials(account, config)
    options: dict[str, Any] = {"allow_loopback_http": True}
    if account.sandbox == "payfield_old":
        options["dialect"] = "old"
    if account.provider == "banked":
        options |= {"webhook_version": "v3" if account.name == "banked-v3" else "v2", "deleted_state": "failed"}
    if account.provider == "stable_genius":
        options["events_path"] = "/events"  # an extension of the sandbox
    data: dict[str, Any] = {
        "provider": account.provider,
        "environment": "test",
        "base_url": sandbox_url + account.base_path,
        "secrets": {name: f"plain:{value}" for name, value in secrets.items()},
        "webhook_keys": [{"id": "demo", "secret": f"plain:{webhook_key}"}],
        "options": options,
    }
    # the sandbox's limits run faster with its time
    if account.provider == "alternative_payments":
        data["budget"] = _budget(5, 1.0, config.speed)
    if account.provider == "stable_genius":
        data["budget"] = _budget(100, 60.0, config.speed)
    return data


def _budget(requests: int, seconds: float, speed: float) -> dict[str, float]:
    limit, window = scaled_window(requests, seconds, speed)
    return {"requests": limit, "seconds": window}


def _credentials(account: DemoAccount, config: SandboxConfig) -> tuple[dict[str, str], str]:
    if account.sandbox == "alternative_payments":
        at = config.alternative_payments
        return {"client_id": at.client_id, "client_secret": at.client_secret}, at.webhook_secret
    if account.sandbox == "stable_genius":
        return {"api_key": config.stable_genius.test_key}, config.stable_genius.signing_secret
    if account.sandbox == "banked":
        signature_key = f"{account.name}-{config.banked.signature_key}"  # one for each URL
        return {"api_key": config.banked.key, "api_secret": config.banked.secret}, signature_key
    shop = config.payfield if account.sandbox == "payfield" else config.payfield_old
    return {"api_key": shop.api_key, "api_secret": shop.api_secret}, shop.webhook_secret
