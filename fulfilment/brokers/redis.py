"""Redis Streams: confirmed by the reply to XADD.

The server's appendfsync says how durable that is.
"""

from typing import TYPE_CHECKING, Any, Final

from faststream.redis import RedisBroker
from faststream.security import BaseSecurity, SASLPlaintext
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from fulfilment.brokers.contract import BrokerFault, BrokerMessage, BrokerTarget

if TYPE_CHECKING:
    from redis.asyncio.client import Redis

#: What a refusal means; every one may end when the operator has acted. Source: Redis, "Errors", and server.c.
_WORDS: Final = (
    ("WRONGTYPE", "the destination is no stream"),
    ("NOREPLICAS", "the broker has too few replicas"),
    ("MISCONF", "the broker cannot write to its disk"),
)


class RedisPublisher:
    """A pool of connections to one server: as many as there are deliveries at once."""

    is_lost = False  #: each connection of the pool is replaced when it has failed

    def __init__(self, broker: RedisBroker, client: "Redis", stream: str) -> None:
        self._broker = broker
        self._client = client
        self._stream = stream

    async def publish(self, message: BrokerMessage) -> None:
        """Return once the server has given the entry its id."""
        # FastStream would wrap body and headers into one field, in a form that only FastStream reads.
        fields: dict[Any, Any] = {"payload": message.body, **message.headers}
        await self._client.xadd(self._stream, fields)

    def fault_of(self, error: Exception) -> BrokerFault | None:
        """Explain the server's refusals; the connection survives them."""
        if isinstance(error, AuthenticationError | NoPermissionError):
            return BrokerFault(f"the broker refused us ({type(error).__name__})")
        if isinstance(error, OutOfMemoryError):
            return BrokerFault("the broker is full", keeps_connection=True)
        if isinstance(error, ReadOnlyError):
            return BrokerFault("the broker is a replica, which takes nothing")
        if isinstance(error, ResponseError):
            text = next(
                (text for word, text in _WORDS if str(error).startswith(word)), "the broker refused the message"
            )
            return BrokerFault(text, keeps_connection=True)
        return None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._broker.stop()


async def connect(target: BrokerTarget) -> RedisPublisher:
    """Open a pool whose server has answered; raise what the client raises."""
    url = target.url
    [place] = url.with_hosts(url.hosts())
    security = (
        BaseSecurity(ssl_context=target.tls)
        if url.password is None
        else SASLPlaintext(url.username or "", url.password, ssl_context=target.tls)
    )
    broker = RedisBroker(
        place,
        security=security,
        socket_connect_timeout=target.timeout,
        socket_timeout=target.timeout,
        apply_types=False,
    )
    client = await broker.connect()
    # An XADD without an answer may have been done: whether to repeat it is the dispatcher's to decide and record.
    client.set_retry(Retry(NoBackoff(), 0))
    try:
        await client.ping()
    except BaseException:
        await broker.stop()
        raise
    return RedisPublisher(broker, client, target.destination)
