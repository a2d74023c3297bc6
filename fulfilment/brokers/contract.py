"""The contract of a broker's publisher."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fulfilment.brokers.url import BrokerUrl
from fulfilment.network import TlsContext


@dataclass(frozen=True, slots=True)
class BrokerTarget:
    """One place at one broker, with addresses that were checked."""

    url: BrokerUrl = field(repr=False)
    destination: str
    timeout: float  #: seconds for connecting, and for a confirmation
    tls: TlsContext | None  #: None exactly where the URL is without TLS


@dataclass(frozen=True, slots=True)
class BrokerMessage:
    """One effect as it travels."""

    id: str  #: the outbox id, the same at every attempt
    effect: str
    payment_id: str | None
    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class BrokerFault:
    """Meaning of an exception that a broker's library raises."""

    text: str  #: for people; never a payload, a credential or an address
    is_final: bool = False  #: the broker will never take this message
    keeps_connection: bool = False  #: the connection is as good as before


class NotConfirmed(Exception):
    """Raised by a publisher that knows what went wrong."""

    def __init__(self, fault: BrokerFault) -> None:
        self.fault = fault
        super().__init__(fault.text)


class Publisher(Protocol):
    """One connection to a broker, shared by deliveries at the same time.

    It is made by the `connect` of a broker's module.
    """

    is_lost: bool  #: nothing more can be published here

    async def publish(self, message: BrokerMessage) -> None:
        """Return once the broker has confirmed that it keeps the message; raise otherwise."""
        ...

    def fault_of(self, error: Exception) -> BrokerFault | None:
        """Explain an exception of `publish`; None where it is not known."""
        ...

    async def aclose(self) -> None:
        """Close the connection, and abandon what is unconfirmed."""
        ...
