"""Configured accounts as they are shown, without their secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from providers.contract import Capability, Scheme
from statemachine.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key that verifies an account's deliveries, without its secret."""

    id: str
    not_before: datetime | None
    not_after: datetime | None


@dataclass(frozen=True, slots=True)
class ConfiguredAccount:
    """One configured account, without its secrets."""

    name: str
    provider: str
    environment: str  #: live or test
    webhook_url: str
    default_kind: str
    lifecycles: Mapping[str, Lifecycle]  #: by kind
    configuration: Sequence[tuple[str, str]] = ()  #: name and shown value; of secrets, where they come from
    keys: Sequence[VerifyingKey] = ()  #: in the order of the settings
    budget: tuple[int, float] | None = None  #: so many requests in so many seconds; None where no limit is known
    window: tuple[float, float] = (300, 300)  #: seconds that a signed time may be old, and ahead
    authentication: Scheme | None = None  #: how its deliveries are told from forged ones, in words
    capabilities: Mapping[str, Sequence[str]] = field(default_factory=dict)  #: by call, the kinds that it is for

    @property
    def can_be_asked(self) -> bool:
        """Return whether the provider can be asked about any of its payments."""
        return bool(self.capabilities.get(Capability.ASK))
