"""NATS JetStream: confirmed by the stream's PubAck.

The effect's id is the message id by which the stream removes duplicates.
"""

import asyncio
import ssl
from typing import Any, Final, cast

from faststream.nats import NatsBroker
from faststream.nats.security import NatsSecurity, NatsToken, NatsUserPassword
from nats.aio.client import Client
from nats.errors import MaxPayloadError, NoServersError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from fulfilment.brokers.contract import BrokerFault, BrokerMessage, BrokerTarget, NotConfirmed
from fulfilment.brokers.url import BrokerUrl
from fulfilment.network import TlsContext

_CONNECT_TIMEOUT_SHARE: Final = 0.8  #: of the time for connecting
_UNCLEAR: Final = BrokerFault("the server does not offer TLS, so that nothing was sent")
_LOST: Final = BrokerFault("the connection was lost before the confirmation")
_NO_STREAM: Final = BrokerFault("no stream takes the subject, or JetStream is not there", keeps_connection=True)
_TOO_LARGE: Final = BrokerFault("the message is larger than the broker takes", is_final=True, keeps_connection=True)
_FULL: Final = BrokerFault("the stream is full", keeps_connection=True)
#: JetStream's own codes. Source: nats-server, server/errors.json.
_KNOWN: Final = {
    10023: BrokerFault("the server has too few resources", keeps_connection=True),
    10039: BrokerFault("JetStream is not enabled for the account", keeps_connection=True),
    10047: BrokerFault("the server's storage is full", keeps_connection=True),
    10054: _TOO_LARGE,
    10077: _FULL,
}


class _InTheClear(OSError):
    """A server asks for the password without TLS.

    It is an OSError, after which the client closes its socket.
    """


class NatsPublisher:
    """One connection to one server of a cluster."""

    def __init__(self, client: Client, subject: str, timeout: float, lost: "asyncio.Future[None]") -> None:
        self._client = client
        # FastStream waits for a PubAck only where it is told a stream's name, and refuses every other stream then.
        # Which stream takes the subject is the operator's matter, so that the context is asked itself.
        self._stream: JetStreamContext = client.jetstream()
        self._subject = subject
        self._timeout = timeout
        self._lost = lost

    @property
    def is_lost(self) -> bool:
        """True once the connection has ended."""
        return self._lost.done() or self._client.is_closed

    async def publish(self, message: BrokerMessage) -> None:
        """Return once a stream has stored the message, or has it already by its id."""
        headers = {**message.headers, "Nats-Msg-Id": message.id}
        sending: asyncio.Future[Any] = asyncio.ensure_future(
            self._stream.publish(
                f"{self._subject}.{message.effect}", message.body, timeout=self._timeout, headers=headers
            )
        )
        try:
            # The client would wait for an answer to a connection that is no more.
            await asyncio.wait((sending, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise NotConfirmed(_LOST)
            sending.result()
        finally:
            sending.cancel()

    def fault_of(self, error: Exception) -> BrokerFault | None:
        """Explain the client's and the stream's errors."""
        if isinstance(error, NoStreamResponseError):
            return _NO_STREAM
        if isinstance(error, MaxPayloadError):
            return _TOO_LARGE
        if isinstance(error, APIError):
            if error.err_code in _KNOWN:
                return _KNOWN[error.err_code]
            return BrokerFault(
                f"the stream refused the message (JetStream error {error.err_code})", keeps_connection=True
            )
        return None

    async def aclose(self) -> None:
        """Close at once: what is worth waiting for was waited for by its own delivery."""
        await self._client.close()


async def connect(target: BrokerTarget) -> NatsPublisher:
    """Connect, with TLS where the URL says so; raise what the client raises."""
    tls = target.tls
    lost = asyncio.get_running_loop().create_future()

    async def ended() -> None:
        if not lost.done():
            lost.set_result(None)

    met: list[Exception] = []

    async def failed(error: Exception) -> None:
        met.append(error)
        if tls is not None:
            tls.is_used = False  # the next server's handshake is another one
        if isinstance(error, ssl.SSLError):  # after which the client would wait for the end of what never began
            raise NotConfirmed(_fault_of(error))

    broker = NatsBroker(
        list(target.url.with_hosts(target.url.hosts())),
        security=_security(target.url, tls),
        # Each server is tried twice, and the client ends by itself: cancelled, it would leave its socket open.
        connect_timeout=cast("int", _CONNECT_TIMEOUT_SHARE * target.timeout / (2 * len(target.url.servers))),
        max_reconnect_attempts=1,
        reconnect_time_wait=0,
        error_cb=failed,
        disconnected_cb=ended,
        closed_cb=ended,
        logger=None,
        apply_types=False,
    )
    try:
        client = await broker.connect()
    except NoServersError:
        raise NotConfirmed(_fault_of(met[-1])) from None
    # From now on reconnecting is the sink's, which tells the deliveries of it; the client would hold them back.
    client.options["allow_reconnect"] = False
    if tls is not None and not tls.is_used:
        await client.close()
        raise NotConfirmed(_UNCLEAR)
    return NatsPublisher(client, target.destination, target.timeout, lost)


def _fault_of(error: Exception) -> BrokerFault:
    return _UNCLEAR if isinstance(error, _InTheClear) else BrokerFault(f"cannot connect ({type(error).__name__})")


def _security(url: BrokerUrl, tls: TlsContext | None) -> NatsSecurity:
    """Make the credentials; a function gives the password after the TLS handshake."""

    def guarded(value: str) -> str:
        def give() -> str:
            if tls is not None and not tls.is_used:
                raise _InTheClear
            return value

        return cast("str", give)  # the client takes functions too; FastStream's annotation does not say so

    if url.username is not None and url.password is not None:
        return NatsUserPassword(guarded(url.username), guarded(url.password), ssl_context=tls)
    if url.username is not None:
        return NatsToken(guarded(url.username), ssl_context=tls)
    return NatsSecurity(ssl_context=tls)
