"""Alternative Payments put together."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import ClassVar

from providers.alternative_payments import parse, scheme
from providers.alternative_payments.client import AlternativePaymentsClient
from providers.alternative_payments.lifecycle import LIFECYCLE, PAYMENT_REQUEST
from providers.alternative_payments.options import AlternativePaymentsOptions
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
from statemachine.lifecycle import Lifecycle


class AlternativePayments(Provider):
    """Hosted payment requests, created once and polled until paid; webhooks are hints."""

    name: ClassVar[str] = "alternative_payments"
    lifecycles: ClassVar[Mapping[str, Lifecycle]] = {PAYMENT_REQUEST: LIFECYCLE}
    options_type = AlternativePaymentsOptions
    secret_names: ClassVar[tuple[str, ...]] = ("client_id", "client_secret")
    webhook_key_detail: ClassVar[str | None] = "secret_key"
    budget: ClassVar[Budget | None] = Budget(5, 1)
    default_base_url: ClassVar[str] = "https://public-api.alternativepayments.io"
    default_kind: ClassVar[str] = PAYMENT_REQUEST
    authentication: ClassVar[Scheme | None] = Scheme(
        "a shared secret, shown with each delivery; nothing is signed or dated",
        "authorization",
        shows_secret=True,
    )

    options: AlternativePaymentsOptions

    def __init__(self, options: AlternativePaymentsOptions) -> None:
        super().__init__(options)

    def capabilities(self) -> Capabilities:
        """Return what is documented; a cancel and a list where the options name a path."""
        calls = [Capability.CREATE, Capability.ASK, Capability.REGISTER]
        if self.options.cancel_path is not None:
            calls.append(Capability.CANCEL)
        if self.options.events_path is not None:
            calls.append(Capability.LIST)
        return dict.fromkeys(calls, frozenset(self.lifecycles))

    def verify(self, delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        """Verify that the sender knows the secret; there is no signed time."""
        return scheme.verify(delivery, keys, now)

    def delivery_key(self, delivery: Delivery) -> str:
        """Return the body's digest; see scheme.delivery_key."""
        return scheme.delivery_key(delivery)

    def parse(self, statement: Statement) -> Reading:
        """Parse an answer or a webhook; see parse.parse."""
        return parse.parse(statement, self.options.amount_unit, allow_loopback=self.options.allow_loopback_http)

    def client(self, account: Account, transport: Transport, clock: Callable[[], datetime]) -> Client:
        """Build a client with `client_id` and `client_secret`; nothing is opened yet."""
        return AlternativePaymentsClient(account, transport, clock, self.options)
