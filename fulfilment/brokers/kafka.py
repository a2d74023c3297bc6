"""Kafka: an idempotent producer, confirmed by all replicas in sync.

One payment keeps to one partition.
"""

from typing import Final

from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    BrokerResponseError,
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RecordTooLargeError,
    UnknownTopicOrPartitionError,
)
from faststream.kafka import KafkaBroker
from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from fulfilment.brokers.contract import BrokerFault, BrokerMessage, BrokerTarget, NotConfirmed

_CLIENT: Final = "receipted"
_NO_TOPIC: Final = BrokerFault("the topic does not exist", keeps_connection=True)
_TOO_LARGE: Final = BrokerFault("the message is larger than the broker takes", is_final=True, keeps_connection=True)
_SASL: Final = {"plain": SASLPlaintext, "scram-sha-256": SASLScram256, "scram-sha-512": SASLScram512}


class KafkaPublisher:
    """One producer, connected to the partitions' leaders, and again to the next."""

    is_lost = False  #: the producer finds its way back by itself

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic

    async def publish(self, message: BrokerMessage) -> None:
        """Return once every replica in sync has the record."""
        await self._broker.publish(
            message.body,
            self._topic,
            key=message.payment_id.encode() if message.payment_id is not None else None,
            headers=dict(message.headers),
            correlation_id=message.id,
            timestamp_ms=round(message.sent_at.timestamp() * 1000),
            no_confirm=False,
        )

    def fault_of(self, error: Exception) -> BrokerFault | None:
        """Explain the producer's errors.

        The connection is kept: another producer would not do better with a broker that is away.
        """
        if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError | RecordTooLargeError):
            return _TOO_LARGE
        if isinstance(error, UnknownTopicOrPartitionError):
            return _NO_TOPIC
        if isinstance(error, TimeoutError | KafkaTimeoutError | KafkaConnectionError):
            return BrokerFault("not confirmed in time", keeps_connection=True)
        if isinstance(error, BrokerResponseError) and error.retriable:
            return BrokerFault(f"not confirmed ({type(error).__name__})", keeps_connection=True)
        return None

    async def aclose(self) -> None:
        """Send what is under way, and close."""
        await self._broker.stop()


async def connect(target: BrokerTarget) -> KafkaPublisher:
    """Start a producer once the topic was found; raise what the client raises."""
    servers = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in target.url.servers]
    security = _security(target)
    limit = round(target.timeout * 1000)
    await _require_topic(target.destination, servers, security, limit)
    broker = KafkaBroker(
        servers,
        security=security,
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=limit,
        client_id=_CLIENT,
        logger=None,
        apply_types=False,
    )
    try:
        await broker.connect()
    except BaseException:
        await broker.stop()
        raise
    return KafkaPublisher(broker, target.destination)


async def _require_topic(topic: str, servers: list[str], security: BaseSecurity, limit: int) -> None:
    """Raise where no server answers, and where the topic is not in the list of all.

    The producer would ask for the topic by its name, which makes it where the cluster is set to do so. Besides, one
    that could not be started would be left unclosed by FastStream.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=servers, client_id=_CLIENT, request_timeout_ms=limit, **parse_security(security)
    )
    try:
        await admin.start()
        if topic not in await admin.list_topics():
            raise NotConfirmed(_NO_TOPIC)
    finally:
        await admin.close()


def _security(target: BrokerTarget) -> BaseSecurity:
    url = target.url
    if url.username is None:
        return BaseSecurity(ssl_context=target.tls)
    return _SASL[url.sasl](url.username, url.password or "", ssl_context=target.tls)
