"""Effects to a broker: delivered once it has confirmed that it keeps the message."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final

from fulfilment.brokers import url as urls
from fulfilment.brokers.contract import BrokerFault, BrokerMessage, BrokerTarget, NotConfirmed, Publisher
from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.errors import AddressRefused, InvalidSink
from fulfilment.network import LOOPBACK, Network, Resolver, check_addresses, resolve_host, tls_context
from fulfilment.signing import Signer

TIMEOUT_S: Final = 15.0
_CLOSE_TIMEOUT_S: Final = 5.0
#: For each kind of broker, the driver that FastStream needs for it.
DRIVERS: Final = {"nats": "nats", "rabbitmq": "aio_pika", "kafka": "aiokafka", "redis": "redis"}
EXTRA: Final = 'install receipted with the extra brokers: pip install "receipted[brokers]"'
_MAX_DESTINATION_CHARS: Final = 200
_NAME: Final = re.compile(r"[!-~]+", re.ASCII)
#: A subject's tokens without wildcards; a topic's characters. Sources: NATS, "Subject-Based Messaging"; Kafka, "Topic".
_NAMES: Final = {
    "nats": re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII),
    "kafka": re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+", re.ASCII),
}
_CLOSED: Final = BrokerFault("the sink is closed")


@dataclass(slots=True)
class _Link:
    """A connection and how many deliveries are using it."""

    publisher: Publisher
    users: int = 0
    is_retired: bool = False  #: closed as soon as nobody uses it
    is_closed: bool = False


class BrokerSink:
    """Publish each effect to one broker, at least once.

    An effect is delivered only when the broker has confirmed it.

    There is one connection, opened by the first delivery and shared by all; for Redis it is a pool, and for Kafka one
    to each partition's leader. After any failure that leaves it in doubt, the next delivery opens another, and the
    old one is closed when the last delivery on it has ended, so that nobody's confirmation is cut off. `timeout` is
    in seconds and covers all of a delivery, connecting included.

    `keys` are optional here, as a broker knows its publishers; where given, all sign. `authorities` are certificates
    in PEM that are trusted instead of the system's. Raises InvalidSink, InsecureSinkUrl or InvalidSigningKey at
    construction, and InvalidSink where the broker's library is not installed.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        url: str,
        destination: str,
        keys: Sequence[str] = (),
        *,
        allowed_networks: Sequence[Network] = (),
        authorities: str | None = None,
        timeout: float = TIMEOUT_S,
        resolver: Resolver = resolve_host,
    ) -> None:
        if timeout <= 0:
            raise InvalidSink("a sink's timeout is above 0 seconds", param="timeout")
        self.name = name
        self._broker = _module_of(kind)
        self._url = urls.read(kind, url)
        urls.require_protected(self._url, allowed_networks)
        require_destination(kind, destination)
        self._destination = destination
        self._signer = Signer(keys) if keys else None
        self._allowed = (*LOOPBACK, *allowed_networks)
        self._authorities = authorities
        tls_context(authorities)  # refused now rather than at the first delivery
        self._timeout = timeout
        self._resolver = resolver
        self._link: _Link | None = None
        self._opening: asyncio.Task[_Link] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._url.kind!r}, {self._destination!r})"

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """One message with the effect's id; Delivered once the broker has confirmed it."""
        link: _Link | None = None
        try:
            async with asyncio.timeout(self._timeout):
                link = await self._connected()
                link.users += 1
                try:
                    await link.publisher.publish(self._message(owed, now))
                finally:
                    link.users -= 1
                    self._close_unused(link)
        except Exception as error:  # noqa: BLE001 - whatever a broker's library raises, the attempt has failed
            fault = self._fault_of(error, link)
            if link is not None and not fault.keeps_connection:
                self._retire(link)
            return Failed(fault.text, is_final=fault.is_final)
        return Delivered()

    def _message(self, owed: OwedEffect, now: datetime) -> BrokerMessage:
        body, message_id, timestamp = owed.payload.encode(), f"msg_{owed.id}", int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "receipted-effect": owed.effect,
            "receipted-attempt": str(owed.attempt),
        }
        if owed.traceparent is not None:
            headers["traceparent"] = owed.traceparent
        if self._signer is not None:
            headers["webhook-signature"] = self._signer.sign(message_id, timestamp, body)
        return BrokerMessage(owed.id, owed.effect, owed.payment_id, body, headers, now)

    def _fault_of(self, error: Exception, link: _Link | None) -> BrokerFault:
        """Describe an exception without quoting it: no payload and no credential."""
        if isinstance(error, NotConfirmed):
            return error.fault
        if isinstance(error, AddressRefused):
            return BrokerFault(error.message)
        known = link.publisher.fault_of(error) if link is not None else None
        if known is not None:
            return known
        if isinstance(error, TimeoutError):
            return BrokerFault(f"{'not connected' if link is None else 'not confirmed'} within {self._timeout:g} s")
        return BrokerFault(f"{'cannot connect' if link is None else 'not confirmed'} ({type(error).__name__})")

    async def _connected(self) -> _Link:
        """Return the shared connection, and open it where there is none.

        Deliveries at the same time wait for the same one.
        """
        if self._is_closed:
            raise NotConfirmed(_CLOSED)
        link = self._link
        if link is not None:
            if not link.publisher.is_lost:
                return link
            self._retire(link)
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            # Looked at, so that a failure that nobody waits for any more is not reported as forgotten.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        opening = self._opening
        try:
            # Shielded: one delivery that is cancelled must not take the connection from the others.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if self._is_closed and opening.cancelled():
                raise NotConfirmed(_CLOSED) from None
            raise

    async def _open(self) -> _Link:
        try:
            async with asyncio.timeout(self._timeout):
                url = self._url if self._url.is_secure else await self._pinned()
                secured = tls_context(self._authorities) if url.is_secure else None
                target = BrokerTarget(url, self._destination, self._timeout, secured)
                self._link = _Link(await self._broker.connect(target))
            return self._link
        finally:
            self._opening = None

    async def _pinned(self) -> urls.BrokerUrl:
        """Replace host names by checked addresses.

        Nothing below can look them up again.
        """
        found = []
        for host, port in self._url.servers:
            addresses = check_addresses(await self._resolver(host, port), self._allowed, only_allowed=True)
            found.append((addresses[0], port))
        return replace(self._url, servers=tuple(found))

    def _retire(self, link: _Link) -> None:
        if self._link is link:
            self._link = None
        link.is_retired = True
        self._close_unused(link)

    def _close_unused(self, link: _Link) -> None:
        if link.is_retired and not link.users and not link.is_closed:
            link.is_closed = True
            task = asyncio.create_task(_close(link.publisher))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close the connection; what is unconfirmed has failed. A repeat does nothing."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._link is not None:
            self._link.users = 0
            self._retire(self._link)
        if self._closing:
            await asyncio.wait(self._closing)


async def _close(publisher: Publisher) -> None:
    # What is broken already may fail to close, or hang, and nothing more can be done about it.
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await publisher.aclose()


def is_installed(kind: str) -> bool:
    """Tell whether the extra with this broker's library is installed."""
    return find_spec("faststream") is not None and find_spec(DRIVERS[kind]) is not None


def require_destination(kind: str, destination: str) -> None:
    """Raise InvalidSink for a destination that the kind of broker cannot have.

    It is a subject, an exchange, a topic or a stream.
    """
    if not destination:
        raise InvalidSink(f"a {kind} sink needs a destination", param="destination")
    is_odd = len(destination) > _MAX_DESTINATION_CHARS or not _NAMES.get(kind, _NAME).fullmatch(destination)
    if is_odd:
        raise InvalidSink(f"the destination is no name that a {kind} broker knows", param="destination")


def _module_of(kind: str) -> ModuleType:
    if kind not in DRIVERS:
        raise InvalidSink(f"there is no broker of kind {kind!r}", param="kind")
    if not is_installed(kind):
        raise InvalidSink(f"the library of a {kind} sink is missing: {EXTRA}", param="kind")
    return import_module(f"fulfilment.brokers.{kind}")
