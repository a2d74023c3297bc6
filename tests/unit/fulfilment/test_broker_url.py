"""Which broker URLs are taken, what is read of them, and where nothing goes in the clear."""

import ipaddress

import pytest

from fulfilment.broker_sink import BrokerSink, require_destination
from fulfilment.brokers.url import read, require_protected, secrets_in
from fulfilment.errors import InsecureSinkUrl, InvalidSigningKey, InvalidSink

PRIVATE = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("kind", "text", "is_secure", "servers", "user", "password", "path", "sasl"),
    [
        ("nats", "nats://127.0.0.1", False, (("127.0.0.1", 4222),), None, None, "", "plain"),
        ("nats", "tls://a:1,b,[::1]:7", True, (("a", 1), ("b", 4222), ("::1", 7)), None, None, "", "plain"),
        ("nats", "tls://s3cr3t@a", True, (("a", 4222),), "s3cr3t", None, "", "plain"),
        ("rabbitmq", "amqps://u:p%40%2Fss@mq/shop", True, (("mq", 5671),), "u", "p@/ss", "shop", "plain"),
        ("rabbitmq", "amqp://localhost/%2F", False, (("localhost", 5672),), None, None, "%2F", "plain"),
        ("kafka", "kafka://a:1,b", False, (("a", 1), ("b", 9092)), None, None, "", "plain"),
        (
            "kafka",
            "kafka+ssl://u:p@a:1?sasl=scram-sha-512",
            True,
            (("a", 1),),
            "u",
            "p",
            "",
            "scram-sha-512",
        ),
        ("redis", "rediss://:pass@cache/3", True, (("cache", 6379),), "", "pass", "3", "plain"),
    ],
)
def test_read(kind, text, is_secure, servers, user, password, path, sasl):
    url = read(kind, text)
    assert (url.is_secure, url.servers, url.username, url.password) == (is_secure, servers, user, password)
    assert (url.path, url.sasl) == (path, sasl)
    for secret in ("s3cr3t", "p@/ss", "pass"):
        assert secret not in repr(url)
        assert not any(secret in place for place in url.with_hosts(url.hosts()))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("nats", "redis://127.0.0.1"),
        ("nats", "127.0.0.1:4222"),
        ("nats", "nats://"),
        ("nats", "nats://a:port"),
        ("nats", "nats://a:4222/path"),
        ("nats", "nats://a:1,,b:2"),
        ("nats", "ws://a"),
        ("rabbitmq", "amqp://a,b"),
        ("rabbitmq", "amqp://a/?ssl=0"),
        ("rabbitmq", "amqps://a/#x"),
        ("kafka", "kafka://user@a"),
        ("kafka", "kafka://a?sasl=none"),
        ("kafka", "kafka://a?security=plaintext"),
        ("redis", "redis://a/name"),
        ("redis", "redis://a?ssl_cert_reqs=none"),
        ("redis", "unix:///run/redis.sock"),
        ("redis", "redis://a b"),
    ],
)
def test_refused(kind, text):
    with pytest.raises(InvalidSink) as caught:
        read(kind, text.replace("://", "://u:hidden-word@") if "@" not in text else text)
    assert "hidden-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "allowed", "is_permitted"),
    [
        ("nats://127.0.0.1", [], True),
        ("nats://[::1]:4222", [], True),
        ("nats://localhost", [], True),
        ("nats://10.1.2.3", [], False),
        ("nats://10.1.2.3", PRIVATE, True),
        ("nats://[fd00::7]", PRIVATE, True),
        ("nats://192.168.1.1", PRIVATE, False),
        ("nats://8.8.8.8", PRIVATE, False),
        ("nats://10.1.2.3,192.168.1.1", PRIVATE, False),
        ("nats://nats.internal", [], False),
        ("nats://nats.internal", PRIVATE, True),  # looked up, and checked, with each connection
        ("tls://nats.example.com", [], True),
        ("tls://8.8.8.8", [], True),
    ],
)
def test_nothing_goes_in_the_clear(text, allowed, is_permitted):
    url = read("nats", text)
    if is_permitted:
        require_protected(url, allowed)
        return
    with pytest.raises(InsecureSinkUrl, match="tls://"):
        require_protected(url, allowed)


def test_secrets_in():
    assert secrets_in("amqp://user:p%40ss@host/v") == {"p%40ss", "p@ss"}
    assert secrets_in("tls://token@host") == {"token"}
    assert secrets_in("kafka+ssl://u:p@a:1,b:2") == {"p"}
    assert secrets_in("nats://host:4222") == secrets_in("nonsense") == secrets_in("") == set()


@pytest.mark.parametrize(
    ("kind", "destination"),
    [
        ("nats", ""),
        ("nats", "pay ments"),
        ("nats", "payments."),
        ("nats", "payments.>"),
        ("nats", "pay*"),
        ("kafka", "pay/ments"),
        ("kafka", ".."),
        ("rabbitmq", "a\nb"),
        ("redis", "x" * 201),
    ],
)
def test_destinations_that_cannot_be(kind, destination):
    with pytest.raises(InvalidSink):
        require_destination(kind, destination)


def test_destinations_that_can_be():
    for kind, destination in [
        ("nats", "shop.payments-1"),
        ("kafka", "shop.payments_1"),
        ("rabbitmq", "shop/pay"),
        ("redis", "a:{b}"),
    ]:
        require_destination(kind, destination)


def test_sinks_that_must_not_start():
    with pytest.raises(InsecureSinkUrl):
        BrokerSink("shop", "redis", "redis://cache.example.com", "payments")
    with pytest.raises(InvalidSigningKey):
        BrokerSink("shop", "redis", "redis://127.0.0.1", "payments", ["short"])
    with pytest.raises(InvalidSink, match="authorities"):
        BrokerSink("shop", "redis", "rediss://127.0.0.1", "payments", authorities="no certificate")
    with pytest.raises(InvalidSink, match="timeout"):
        BrokerSink("shop", "redis", "redis://127.0.0.1", "payments", timeout=0)
    with pytest.raises(InvalidSink, match="kind"):
        BrokerSink("shop", "mqtt", "mqtt://127.0.0.1", "payments")


@pytest.mark.parametrize("missing", ["faststream", "nats"])
def test_without_the_extra(monkeypatch, missing):
    """A sink whose library is not installed is refused when it is made, in words that say what to install."""
    from importlib.util import find_spec

    monkeypatch.setattr("fulfilment.broker_sink.find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(InvalidSink, match=r"receipted\[brokers\]"):
        BrokerSink("shop", "nats", "nats://127.0.0.1", "payments")
