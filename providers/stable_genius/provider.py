"""Stable Genius put together."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import ClassVar

from providers.contract import (
    Account,
    Budget,
    Capabilities,
    Capability,
    Client,
    Delivery,
    Provider,
    Reading,
    Scheme,
    Statement,
    Transport,
    Verified,
)
from providers.signing import KeyRing, Window
from providers.stable_genius import parse, scheme
from providers.stable_genius.client import StableGeniusClient
from providers.stable_genius.lifecycle import LIFECYCLE, PAYMENT_INTENT
from providers.stable_genius.options import StableGeniusOptions
from statemachine.lifecycle import Lifecycle


class StableGenius(Provider):
    """USDC payment intents: signed webhooks, idempotent creation, cancellation."""

    name: ClassVar[str] = "stable_genius"
    lifecycles: ClassVar[Mapping[str, Lifecycle]] = {PAYMENT_INTENT: LIFECYCLE}
    options_type = StableGeniusOptions
    secret_names: ClassVar[tuple[str, ...]] = ("api_key",)
    budget: ClassVar[Budget | None] = Budget(100, 60)  #: a test key's; a live key may send 1,000 a minute
    default_base_url: ClassVar[str] = "https://api.stablegenius.co/v1"
    default_kind: ClassVar[str] = PAYMENT_INTENT
    authentication: ClassVar[Scheme | None] = Scheme(
        "HMAC-SHA256 over the signed time, a full stop and the exact body",
        scheme.SIGNATURE_HEADER,
        scheme.TIMESTAMP_HEADER,
    )

    how_to_register: ClassVar[str] = "add the URL in its dashboard, under Settings, Webhooks"

    options: StableGeniusOptions

    def __init__(self, options: StableGeniusOptions) -> None:
        super().__init__(options)

    def capabilities(self) -> Capabilities:
        """Return what Stable Genius documents; registration where the options name it."""
        calls = [Capability.CREATE, Capability.ASK, Capability.CANCEL, Capability.LIST]
        if self.options.webhook_path is not None:
            calls.append(Capability.REGISTER)
        return dict.fromkeys(calls, frozenset(self.lifecycles))

    def verify(self, delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        """Verify a delivery and its age; see scheme.verify."""
        return scheme.verify(delivery, keys, window, now)

    def delivery_key(self, delivery: Delivery) -> str:
        """Return the event's id, else the body's digest; see scheme.delivery_key."""
        return scheme.delivery_key(delivery)

    def parse(self, statement: Statement) -> Reading:
        """Parse an event or an answer; see parse.parse."""
        return parse.parse(statement, self.options.reference_key)

    def client(self, account: Account, transport: Transport, clock: Callable[[], datetime]) -> Client:
        """Build a client with the account's `api_key`; it opens nothing until it is used."""
        return StableGeniusClient(account, transport, self.options)
