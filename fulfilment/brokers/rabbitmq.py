"""RabbitMQ: a publisher confirm of a message that was put into a queue.

The exchange must exist.
"""

import asyncio
import logging
from typing import Any, Final

from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError, PublishError
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange
from faststream.security import BaseSecurity, SASLPlaintext
from pamqp.commands import Basic

from fulfilment.brokers.contract import BrokerFault, BrokerMessage, BrokerTarget, NotConfirmed
from fulfilment.brokers.url import BrokerUrl

_CONNECT_TIMEOUT_SHARE: Final = 0.8  #: of the time for connecting: the client ends its attempt before we end ours
_NO_EXCHANGE: Final = BrokerFault("the exchange does not exist")
_UNROUTABLE: Final = BrokerFault("no queue is bound for the effect", keeps_connection=True)
_REFUSED: Final = BrokerFault("the broker did not take the message (nack)", keeps_connection=True)
_TOO_LARGE: Final = BrokerFault("the message is larger than the broker takes", is_final=True)

# It reports a message that came back too late with its whole content, and payloads reach no log.
logging.getLogger("aiormq.channel").disabled = True


class RabbitPublisher:
    """One connection with one channel in confirm mode."""

    def __init__(self, broker: RabbitBroker, exchange: RabbitExchange, timeout: float) -> None:
        self._broker = broker
        self._exchange = exchange
        self._timeout = timeout
        self.is_lost = False

    async def publish(self, message: BrokerMessage) -> None:
        """Return once the broker has confirmed.

        A message that no queue takes comes back and is a failure.
        """
        headers = {name: value for name, value in message.headers.items() if name != "content-type"}
        confirmed = await self._broker.publish(
            message.body,
            exchange=self._exchange,
            routing_key=message.effect,
            mandatory=True,
            persist=True,
            timeout=self._timeout,
            headers=dict(headers),
            content_type=message.headers["content-type"],
            message_id=message.id,
            correlation_id=message.id,
            message_type=message.effect,
            timestamp=message.sent_at,
        )
        if not isinstance(confirmed, Basic.Ack):
            raise NotConfirmed(_REFUSED)

    def fault_of(self, error: Exception) -> BrokerFault | None:
        """Explain the channel's errors."""
        if isinstance(error, PublishError):
            return _UNROUTABLE
        if isinstance(error, DeliveryError):
            return _REFUSED
        if isinstance(error, ChannelNotFoundEntity):
            return _NO_EXCHANGE
        # Of what 406 may say to a publisher, only this is about the message. Source: rabbit_channel.erl.
        if isinstance(error, ChannelPreconditionFailed) and "larger than" in str(error):
            return _TOO_LARGE
        return None

    async def aclose(self) -> None:
        """Close the channel and the connection."""
        await self._broker.stop()


async def connect(target: BrokerTarget) -> RabbitPublisher:
    """Connect and find the exchange; raise what the client raises."""
    url = target.url
    [place] = url.with_hosts(url.hosts())
    lost: list[RabbitPublisher] = []

    def ended(*_given: Any) -> None:
        for publisher in lost:
            publisher.is_lost = True

    broker = RabbitBroker(
        place,
        security=_security(url, target),
        timeout=_CONNECT_TIMEOUT_SHARE * target.timeout,
        fail_fast=True,
        default_channel=Channel(publisher_confirms=True, on_return_raises=True),
        on_close=[ended],
        app_id="receipted",
        logger=None,
        apply_types=False,
    )
    # Asked for, not declared: which exchange there is, and what is bound to it, is the operator's.
    exchange = RabbitExchange(target.destination, type=ExchangeType.TOPIC, declare=False)
    connecting = asyncio.create_task(broker.connect())
    try:
        # Cancelled, the client would go on connecting behind our back and without end; it has a limit of its own.
        await asyncio.shield(connecting)
        await broker.declare_exchange(exchange)
    except BaseException as error:
        await asyncio.wait([connecting], timeout=target.timeout)
        connecting.cancel()
        await broker.stop()
        if isinstance(error, ChannelNotFoundEntity):
            raise NotConfirmed(_NO_EXCHANGE) from None
        raise
    publisher = RabbitPublisher(broker, exchange, target.timeout)
    lost.append(publisher)
    return publisher


def _security(url: BrokerUrl, target: BrokerTarget) -> BaseSecurity:
    if url.username is None:
        return BaseSecurity(ssl_context=target.tls)
    return SASLPlaintext(url.username, url.password or "", ssl_context=target.tls)
