"""What the exceptions of the clients become, where no broker can be made to raise them cheaply."""

import pytest
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError
from nats.errors import MaxPayloadError
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError
from pamqp.commands import Basic
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from fulfilment.brokers.nats import NatsPublisher
from fulfilment.brokers.rabbitmq import RabbitPublisher
from fulfilment.brokers.redis import RedisPublisher

LARGE = ("the message is larger than the broker takes", True)
SAID = "PRECONDITION_FAILED - message size 9 is larger than configured max size 8"


def fault(publisher, error):
    found = publisher.fault_of(object.__new__(publisher), error)
    return None if found is None else (found.text, found.is_final)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ChannelPreconditionFailed(SAID), LARGE),
        (ChannelPreconditionFailed("PRECONDITION_FAILED - inequivalent arg"), None),
        (ChannelNotFoundEntity("NOT_FOUND - no exchange"), ("the exchange does not exist", False)),
        (DeliveryError(None, Basic.Nack()), ("the broker did not take the message (nack)", False)),
        (RuntimeError(), None),
    ],
)
def test_rabbitmq(error, expected):
    assert fault(RabbitPublisher, error) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MaxPayloadError(), LARGE),
        (APIError(code=400, err_code=10054), LARGE),
        (NoStreamResponseError(), ("no stream takes the subject, or JetStream is not there", False)),
        (ServiceUnavailableError(code=503, err_code=10077), ("the stream is full", False)),
        (ServiceUnavailableError(code=503, err_code=10023), ("the server has too few resources", False)),
        (APIError(code=400, err_code=10071), ("the stream refused the message (JetStream error 10071)", False)),
        (OSError(), None),
    ],
)
def test_nats(error, expected):
    assert fault(NatsPublisher, error) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("OOM command not allowed"), ("the broker is full", False)),
        (ReadOnlyError("READONLY You can't write"), ("the broker is a replica, which takes nothing", False)),
        (NoPermissionError("NOPERM this user"), ("the broker refused us (NoPermissionError)", False)),
        (ResponseError("NOREPLICAS Not enough good replicas"), ("the broker has too few replicas", False)),
        (ResponseError("MISCONF Redis is configured"), ("the broker cannot write to its disk", False)),
        (ResponseError("ERR unheard of"), ("the broker refused the message", False)),
        (OSError(), None),
    ],
)
def test_redis(error, expected):
    assert fault(RedisPublisher, error) == expected
