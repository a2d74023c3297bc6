"""Banked put together."""

from collections.abc import Callable
from datetime import datetime

from providers.banked import lifecycle, parse, requests, scheme
from providers.banked.client import BankedClient
from providers.banked.options import BankedOptions
from providers.contract import (
    Account,
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


class Banked(Provider):
    """Banked's payment sessions, refunds and payouts (v2) and payins (v3)."""

    name = "banked"
    lifecycles = lifecycle.LIFECYCLES
    options_type = BankedOptions
    secret_names = ("api_key", "api_secret")
    webhook_key_detail = "signature_key"
    default_base_url = "https://api.banked.com"
    default_kind = "payment_session"
    authentication = Scheme(
        "HMAC-SHA256 over the signed time, a full stop and the exact body", "banked-signature", "banked-signature"
    )

    options: BankedOptions

    def __init__(self, options: BankedOptions) -> None:
        super().__init__(options)

    def capabilities(self) -> Capabilities:
        """Return what Banked documents; a list where the options name its path."""
        every = frozenset(self.lifecycles)
        listed = {Capability.LIST: frozenset({self.options.list_kind})} if self.options.list_path is not None else {}
        return {
            Capability.CREATE: frozenset(requests.BODIES),
            Capability.ASK: every,
            Capability.CANCEL: frozenset({"payment_session"}),
            Capability.REFUND: requests.REFUNDABLE,
            Capability.REGISTER: every,
            **listed,
        }

    def verify(self, delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        """Verify a webhook; raise DeliveryRejected and nothing else, for any bytes."""
        return scheme.verify(delivery, keys, window, now)

    def delivery_key(self, delivery: Delivery) -> str | None:
        """Return the id of one event, equal for a redelivery; 200 characters, total."""
        return scheme.delivery_key(delivery.body)

    def parse(self, statement: Statement) -> Reading:
        """Parse an authentic statement; total on any bytes."""
        return parse.parse(statement, self.options)

    def client(self, account: Account, transport: Transport, clock: Callable[[], datetime]) -> Client:
        """Build a client for one account; it opens nothing until it is used."""
        return BankedClient(self.options, account, transport, clock)
