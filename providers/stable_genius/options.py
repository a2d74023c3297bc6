"""Options of an account at Stable Genius."""

from pydantic import Field

from providers.contract import ProviderOptions
from providers.stable_genius.errors import ResetUnit


class StableGeniusOptions(ProviderOptions):
    """Options of one account; defaults follow the documentation, or send nothing."""

    merchant_id: str | None = None  #: `mer_...` of new intents; a payment's own `merchant_id` goes before it
    ttl: int | None = Field(default=None, ge=60, le=3600)  #: seconds that new intents live; the provider's own is 300
    reference_key: str = Field(default="reference", min_length=1, max_length=40)
    """The metadata entry that carries the merchant's reference there and back."""
    api_version: str | None = None  #: value of X-API-Version; its form is undocumented (events say `2026-04-01`)
    reset_unit: ResetUnit = "auto"
    """How X-RateLimit-Reset is meant: unix seconds, seconds from now, or by its size (undocumented)."""
    webhook_path: str | None = Field(default=None, pattern=r"^/")
    """Where to POST a webhook's URL below the base URL; undocumented, so none: use the dashboard."""
    allow_loopback_http: bool = False  #: development only: accept http:// URLs on this machine
