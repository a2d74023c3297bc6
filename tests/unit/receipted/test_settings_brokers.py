"""Sinks at brokers in the settings: what refuses to start, in which words, and what nobody gets to see."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from fulfilment.broker_sink import BrokerSink
from receipted.errors import ConfigurationError
from receipted.settings.load import describe, parse
from receipted.wiring import Service
from tests.unit.receipted.test_settings import ENVIRONMENT, GOOD

HERE = {
    **ENVIRONMENT,
    "BROKER": "amqps://shop:broker-pass-word@mq.example.com/pay",
    "TOKEN_URL": "tls://broker-token-1@nats.example.com",
    "OPEN": "amqp://shop:broker-pass-word@mq.example.com/pay",
}
NATS = {"name": "bus", "kind": "nats", "url": "tls://nats.example.com", "destination": "payments"}


def parsed(sink, **changes):
    return parse({**GOOD, "sinks": [sink], **changes}, environ=HERE)


def faults(sink, **changes):
    with pytest.raises(ConfigurationError) as caught:
        parsed(sink, **changes)
    assert "broker-pass-word" not in str(caught.value) + repr(caught.value.faults)
    return {fault.setting: f"{fault.problem}; {fault.remedy}" for fault in caught.value.faults}


@pytest.mark.parametrize(
    "sink",
    [
        NATS,
        {**NATS, "url": "env:TOKEN_URL", "secrets": ["env:SINK"]},
        {**NATS, "kind": "rabbitmq", "url": "env:BROKER"},
        {**NATS, "kind": "kafka", "url": "kafka://127.0.0.1:9092"},
        {**NATS, "kind": "redis", "url": "redis://localhost"},
    ],
)
def test_each_kind_is_wired(sink, tmp_path):
    settings = parsed(sink, service={**GOOD["service"], "database": f"sqlite:///{tmp_path / 'r.db'}"})
    service = Service(settings)
    try:
        found = service.sink(settings.sinks[0])
        assert isinstance(found, BrokerSink)
        assert found.name == "bus"
    finally:
        service.close()


@pytest.mark.parametrize(
    ("change", "setting", "words"),
    [
        ({"url": None}, "url", "is missing; give a nats:// or tls:// URL"),
        ({"url": "redis://127.0.0.1"}, "url", "is not usable; the URL of a nats sink is nats:// or tls://"),
        ({"url": "nats://nats.example.com"}, "url", "could be read on the way; without TLS only loopback"),
        ({"url": "tls://u:broker-pass-word@h"}, "url", 'never written in the settings; give the whole URL as "env:'),
        ({"url": "tls://broker-pass-word@h"}, "url", 'never written in the settings; give the whole URL as "env:'),
        ({"url": "env:UNSET"}, "url", "UNSET, which is not set"),
        ({"kind": "rabbitmq", "url": "env:OPEN"}, "url", "(env:OPEN) could be read on the way"),
        ({"url": "plain:tls://u:broker-pass-word@h"}, "url", "for development only"),
        ({"destination": None}, "destination", "is missing"),
        ({"destination": "a b"}, "destination", "is no name"),
        ({"secrets": ["env:TOKEN"]}, "secrets.0", "Standard Webhooks"),
        ({"handler": "a:b"}, "handler", "no meaning for a nats sink"),
        ({"authorities": "env:TOKEN"}, "authorities", "holds no certificates"),
        ({"authorities": "file:none.pem"}, "authorities", "cannot be read"),
        (
            {"kind": "http", "url": "https://a.example", "secrets": ["env:SINK"]},
            "destination",
            "no meaning for an http",
        ),
    ],
)
def test_each_fault_names_its_setting(change, setting, words):
    sink = {name: value for name, value in {**NATS, **change}.items() if value is not None}
    found = faults(sink)
    assert words in found[f"sinks.0.{setting}"]
    assert len(found) == 1


BLOCKS = re.findall(r"```toml\n(.*?)```", (Path(__file__).parents[3] / "docs" / "brokers.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_examples_of_the_documentation_can_work(block):
    """With the URL that an example's comment gives for its variable."""
    sink = tomllib.loads(block)["sinks"][0]
    variables = dict(re.findall(r'"env:(\w+)" *# (\S+)', block))
    sink.pop("authorities", None)  # a file that only the operator has
    settings = parse({**GOOD, "sinks": [sink]}, environ={**HERE, **variables})
    assert settings.sinks[0].kind == sink["kind"]
    assert len(BLOCKS) == 5


def test_without_tls_only_where_it_is_allowed():
    sink = {**NATS, "url": "nats://10.0.0.5"}
    assert "could be read" in faults(sink)["sinks.0.url"]
    assert parsed(sink, fulfilment={"allowed_networks": ["10.0.0.0/8"]}).sinks[0].url_text() == "nats://10.0.0.5"
    other = faults({**NATS, "url": "nats://10.0.0.5"}, fulfilment={"allowed_networks": ["10.9.0.0/16"]})
    assert "could be read" in other["sinks.0.url"]


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("receipted.settings.validate.is_installed", lambda _kind: False)
    assert 'pip install "receipted[brokers]"' in faults(NATS)["sinks.0.kind"]


def test_nothing_shows_the_password():
    settings = parsed({**NATS, "kind": "rabbitmq", "url": "env:BROKER"})
    shown = json.dumps(describe(settings)) + repr(settings) + str(settings)
    assert "broker-pass-word" not in shown
    assert "env:BROKER" in shown
    assert {"broker-pass-word", HERE["BROKER"]} <= set(settings.secret_values())
    assert "broker-token-1" in set(parsed({**NATS, "url": "env:TOKEN_URL"}).secret_values())
