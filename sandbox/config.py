"""Sandbox configuration: addresses, speed, credentials, faults and payers.

Nothing is read from outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Faults:
    """Fault rates: probabilities from 0 to 1, except fields ending in `seconds`."""

    lose: float = 0.0  #: the event is never sent, nor retried
    duplicate: float = 0.0  #: the event is sent two or three times
    delay: float = 0.0  #: the event waits; exponential with mean delay_seconds, later events overtake it
    delay_seconds: float = 10.0  #: mean of the delay, divided by speed
    reorder: float = 0.0  #: the event is held until after the next event of the same resource
    reorder_hold_seconds: float = 60.0  #: longest hold when no next event comes, divided by speed
    corrupt_signature: float = 0.0  #: the first attempt carries a wrong signature; retried as usual
    stale_timestamp: float = 0.0  #: the first attempt is signed for a day before or after now; retried as usual
    forge: float = 0.0  #: an attacker adds a delivery that claims money, unsigned or wrongly signed
    replay_other_content: float = 0.0  #: an added, validly signed delivery: same identity, other amount
    late_money: float = 0.0  #: after an expiry or a cancellation the money comes all the same
    late_money_seconds: float = 20.0  #: how long after, divided by speed
    api_429: float = 0.0  #: the call is refused as if over the rate limit (not on Payfield, which has no 429)
    api_500: float = 0.0  #: the call is answered 500 and not processed
    api_502_503_504: float = 0.0  #: one of the three; half of these calls were processed
    api_timeout: float = 0.0  #: the call is processed, its answer withheld
    api_timeout_seconds: float = 30.0  #: how long it is withheld unless the client leaves first; not divided
    api_slow: float = 0.0  #: the call waits before it is processed
    api_slow_seconds: float = 0.5  #: how long it waits; not divided

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                msg = f"{item.name} must be a number of at least 0"
                raise ValueError(msg)
            if not item.name.endswith("seconds") and value > 1:
                msg = f"{item.name} is a probability, so at most 1"
                raise ValueError(msg)

    def changed(self, values: Mapping[str, Any]) -> "Faults":
        """Copy with `values` applied.

        ValueError names a field that does not exist or a value out of range.
        """
        unknown = set(values) - {item.name for item in fields(self)}
        if unknown:
            msg = f"no such fault: {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        return replace(self, **values)


@dataclass(frozen=True, slots=True)
class Payers:
    """Simulated payers: shares of behaviours, and times, which are divided by speed."""

    leave: str = ""  #: merchants' references that begin so are left to people; none when empty
    pay: float = 0.80  #: weight of paying
    decline: float = 0.08  #: weight of a refused payment; becomes expire where there is no failed state
    cancel: float = 0.06  #: weight of cancelling
    expire: float = 0.06  #: weight of doing nothing until the time is up
    median_seconds: float = 20.0  #: median time until a payer acts (lognormal)
    sigma: float = 0.6  #: spread of that lognormal
    step_median_seconds: float = 3.0  #: median time between two intermediate states
    skip: float = 0.25  #: chance that an intermediate state which may be skipped is skipped
    refund: float = 0.05  #: chance that a paid Payfield operation is refunded later
    settle: float = 0.5  #: chance that a confirmed Stable Genius intent is settled later
    after_median_seconds: float = 30.0  #: median time from paid to refunded or settled
    hiccup: float = 0.1  #: chance that a Banked payment shows a latest_error which is then resolved


@dataclass(frozen=True, slots=True)
class AlternativePayments:
    """Credentials and undocumented choices of Alternative Payments."""

    client_id: str = "ap_client_sandbox_0001"
    client_secret: str = "ap_client_secret_sandbox_0001"  # noqa: S105 - a documented fake
    webhook_secret: str = "ap_webhook_secret_sandbox_0001"  # noqa: S105 - a documented fake
    requests_per_second: int = 5
    token_seconds: float = 3600.0
    ttl_seconds: float = 1800.0  #: ours: the provider documents no TTL
    amount_unit: Literal["minor", "major"] = "minor"  #: the pages contradict each other
    error_shape: Literal["flat", "nested"] = "flat"  #: OpenAPI says flat, the FAQ says error.message
    page_shape: Literal["flat", "nested"] = (
        "flat"  #: the reference has the cursors beside `data`, the guide in `pagination`
    )
    links_payment_to_request: bool = True  #: ours: webhook data names the request; the link is undocumented


@dataclass(frozen=True, slots=True)
class StableGenius:
    """Credentials and undocumented choices of Stable Genius."""

    test_key: str = "sk_test_sandbox_0001"
    live_key: str = "sk_live_sandbox_0001"
    revoked_key: str = "sk_test_revoked"
    signing_secret: str = "whsec_sandbox_signing_0001"  # noqa: S105 - a documented fake
    merchants: tuple[str, ...] = ("mer_sandbox", "mer_second")
    suspended_merchants: tuple[str, ...] = ("mer_suspended",)
    test_requests_per_minute: int = 100
    live_requests_per_minute: int = 1000
    reset_as_delta: bool = False  #: X-RateLimit-Reset as seconds from now instead of unix seconds
    create_status: int = 201
    replay_status: int = 200


@dataclass(frozen=True, slots=True)
class PayfieldShop:
    """Credentials and undocumented choices of one Payfield shop."""

    api_key: str
    api_secret: str
    webhook_secret: str
    shop_code: str
    currency: str
    dialect: Literal["new", "old"]
    is_default: bool = True  #: False: calls without shop_code answer 422
    balance_minor: int = 100_000_000
    ttl_seconds: float = 900.0
    digest: Literal["hex", "base64"] = "hex"
    on_conflict: Literal["stored", "refuse"] = "stored"  #: same external_id, other parameters: undocumented


PAYFIELD_NEW = PayfieldShop(
    api_key="pf_key_sandbox_new_0001",
    api_secret="pf_api_secret_sandbox_new_0001",  # noqa: S106 - a documented fake
    webhook_secret="pf_webhook_secret_sandbox_new_0001",  # noqa: S106 - a documented fake
    shop_code="shop_bdt",
    currency="BDT",
    dialect="new",
)
PAYFIELD_OLD = PayfieldShop(
    api_key="pf_key_sandbox_old_0001",
    api_secret="pf_api_secret_sandbox_old_0001",  # noqa: S106 - a documented fake
    webhook_secret="pf_webhook_secret_sandbox_old_0001",  # noqa: S106 - a documented fake
    shop_code="shop_inr",
    currency="INR",
    dialect="old",
)


@dataclass(frozen=True, slots=True)
class Banked:
    """Credentials and undocumented choices of Banked."""

    key: str = "bk_test_sandbox_0001"
    secret: str = "sk_test_banked_sandbox_0001"  # noqa: S105 - a documented fake
    signature_key: str = "f0e1d2c3b4a5968778695a4b3c2d1e0f"
    application_id: str = "app_sandbox_0001"  #: the OAuth scope
    live: bool = False
    token_seconds: float = 7200.0
    ttl_seconds: float = 1800.0  #: ours, when the create call gives no expiration
    bank_accounts: tuple[str, ...] = ("ba_sandbox",)
    mandates: tuple[str, ...] = ("mandate_active",)
    currencies: tuple[str, ...] = ("GBP", "EUR", "USD", "AUD")
    delete_result: Literal["failed", "removed"] = "failed"  #: what DELETE of a v2 session leaves behind


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """Everything a sandbox knows; equal configurations make equal choices.

    `speed` divides durations (TTLs, token lifetimes, retry delays, rate windows, payers' times).
    Timestamps are real, and so are network times (delivery timeouts, api_slow, api_timeout).
    """

    public_url: str = "http://127.0.0.1:8900"
    seed: int = 0
    speed: float = 1.0
    faults: Faults = field(default_factory=Faults)
    lose_all: tuple[str, ...] = ()  #: names of providers whose every webhook and callback is lost
    payers: Payers | None = None
    allow_loopback_http: bool = True
    delivery_timeout_seconds: float = 10.0
    delivery_concurrency: int = 32
    alternative_payments: AlternativePayments = field(default_factory=AlternativePayments)
    stable_genius: StableGenius = field(default_factory=StableGenius)
    payfield: PayfieldShop = PAYFIELD_NEW
    payfield_old: PayfieldShop = PAYFIELD_OLD
    banked: Banked = field(default_factory=Banked)

    def __post_init__(self) -> None:
        if self.speed <= 0:
            msg = "speed must be above 0"
            raise ValueError(msg)

    def scaled(self, seconds: float) -> float:
        """Real seconds that a duration of `seconds` takes at this speed."""
        return seconds / self.speed
