"""Options of an account at Alternative Payments."""

from pydantic import Field

from providers.alternative_payments.parse import AmountUnit
from providers.contract import ProviderOptions


class AlternativePaymentsOptions(ProviderOptions):
    """Options for what the provider's documentation leaves open or contradicts."""

    amount_unit: AmountUnit = "minor"
    """What `amount` counts. The glossary calls it the smallest currency unit and shows "100" as $100: make one small
    payment in the demo environment and see what its checkout page asks for."""
    payment_request_path: str = Field(default="/payment/request", pattern=r"^/[^?#]*[^/?#]$")
    """The guides say `/payment/request`, the API reference `/payments/request`."""
    cancel_path: str | None = Field(default=None, pattern=r"^/[^?#]*\{id\}[^?#]*$")
    """Where to POST a cancellation, with `{id}` for the request's id; none is documented."""
    events_path: str | None = Field(default="/webhooks/events", pattern=r"^/[^?#]*[^/?#]$")
    """Where the log of webhook events is listed; none where the account's credentials have no `webhooks:read`."""
    events_created_after: str = Field(default="created_after", pattern=r"^[A-Za-z_.\[\]-]+$")
    """The query's name for the instant that events were created after; the pages describe it and do not name it."""
    events_created_before: str = Field(default="created_before", pattern=r"^[A-Za-z_.\[\]-]+$")
    """The query's name for the instant that events were created before; as above."""
    allow_loopback_http: bool = False  #: development only: accept http:// URLs on this machine
