"""Payfield put together."""

from collections.abc import Callable
from datetime import datetime

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
from providers.payfield import lifecycle, parse, scheme
from providers.payfield.client import PayfieldClient
from providers.payfield.options import PayfieldOptions
from providers.signing import KeyRing, Window


class Payfield(Provider):
    """Payfield's PayIn/Payout API, in the newer or the older dialect."""

    name = "payfield"
    lifecycles = lifecycle.LIFECYCLES
    options_type = PayfieldOptions
    secret_names = ("api_key", "api_secret")
    #: The pages print no host; this one appears in an example of theirs.
    default_base_url = "https://api.payfield.io"
    default_kind = "payin"
    how_to_register = "Payfield takes the callback URL with each create, or in the shop's dashboard"
    authentication = Scheme("HMAC-SHA256 over the signed time and the exact body", "x-signature", "x-timestamp")

    options: PayfieldOptions

    def __init__(self, options: PayfieldOptions) -> None:
        super().__init__(options)

    def capabilities(self) -> Capabilities:
        """Return what Payfield documents: no cancelling, no list, no registration."""
        return dict.fromkeys((Capability.CREATE, Capability.ASK), frozenset(self.lifecycles))

    def verify(self, delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        """Verify a callback; raise DeliveryRejected and nothing else, for any bytes."""
        return scheme.verify(delivery, keys, window, now, self.options.digest_encoding)

    def delivery_key(self, delivery: Delivery) -> str:
        """Return the id of an operation's event: equal for a redelivery, total.

        At most 200 characters.
        """
        return scheme.delivery_key(delivery.body)

    def parse(self, statement: Statement) -> Reading:
        """Parse an authentic statement; total on any bytes."""
        return parse.parse(statement, self.options.default_kind, allow_loopback=self.options.allow_loopback_http)

    def client(self, account: Account, transport: Transport, clock: Callable[[], datetime]) -> Client:
        """Build a client for one shop; it opens nothing until it is used."""
        return PayfieldClient(self.options, account, transport, clock)
