"""docs/adding-a-provider.md is executed: the provider that it builds keeps the contract."""

import asyncio
import importlib
import json
import re
import runpy
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import providers
from providers.contract import Account, CreateRequest, HttpAnswer, ProviderOptions, Statement
from providers.errors import ProviderError
from receipted.settings.load import parse
from receipted.wiring import PROVIDERS
from statemachine.phases import Source
from tests.contract.providers.provider_contract import CHECKS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-provider.md"
BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TEST = "tests/contract/providers/test_example_pay.py"
NOW = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)


def blocks():
    return dict(BLOCK.findall(PAGE.read_text()))


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The folder with the page's files, where `providers.example_pay` can be imported."""
    for path, code in blocks().items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path / "providers")])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("providers.example_pay")]:
        del sys.modules[name]
    vars(providers).pop("example_pay", None)


def example_pay():
    return importlib.import_module("providers.example_pay.provider").ExamplePay


class Recorder:
    """A transport that answers what it is told and keeps what was sent."""

    def __init__(self, status, body):
        self.status, self.body, self.sent = status, body, []

    async def turn(self):
        pass

    async def send(self, method, url, *, headers, content=b""):
        self.sent.append((method, url, headers, content))
        return HttpAnswer(self.status, {}, self.body, NOW)

    async def pause(self, seconds):
        pass


def client(provider, transport):
    account = Account("shop", "https://api.example.com", {"api_key": "a-key"})
    return provider.client(account, transport, lambda: NOW)


def test_every_python_block_names_its_file():
    text = PAGE.read_text()
    assert text.count("```python") == len(blocks())
    assert all(path.startswith("providers/example_pay/") for path in blocks() if path != TEST)


def test_the_provider_keeps_the_contract(built):
    case = runpy.run_path(str(built / TEST))["CASE"]
    for check in CHECKS:
        check(case)


def test_what_is_created_is_read_back(built):
    provider = example_pay()(ProviderOptions())
    body = b'{"id":"ch_1","order":"order-17","status":"waiting","amount":"10.00","currency":"EUR","page":"https://x.example"}'
    transport = Recorder(201, body)
    request = CreateRequest("charge", 1000, "EUR", "order-17", "key-1", return_url="https://shop.example.com/thanks")
    answer = asyncio.run(client(provider, transport).create(request))
    seen = provider.parse(Statement(Source.CREATE, answer.body, NOW, answer.kind)).observations[0]
    ((method, url, headers, content),) = transport.sent

    assert (method, url) == ("POST", "https://api.example.com/charges")
    assert headers["idempotency-key"] == "key-1"
    assert json.loads(content)["amount"] == "10.00"
    assert (seen.provider_ref, seen.reference, seen.amount_minor, seen.currency) == ("ch_1", "order-17", 1000, "EUR")
    assert seen.facts == {"url": "https://x.example"}


def test_an_error_is_named(built):
    provider = example_pay()(ProviderOptions())
    with pytest.raises(ProviderError) as caught:
        asyncio.run(client(provider, Recorder(404, b"")).fetch("charge", "ch_2"))

    assert caught.value.type == "not_found_error"
    assert not caught.value.may_retry


def test_the_settings_take_it_once_the_catalogue_knows_it(built):
    found = parse(
        {
            "service": {
                "public_url": "https://payments.example.com",
                "development": True,
                "token_keys": [{"id": "1", "secret": "plain:0123456789abcdef"}],
            },
            "sinks": [{"name": "shop", "kind": "python", "handler": "shop:received"}],
            "accounts": {
                "example": {
                    "provider": "example_pay",
                    "secrets": {"api_key": "plain:a-key"},
                    "webhook_keys": [{"id": "1", "secret": "plain:fedcba9876543210"}],
                }
            },
        },
        providers={**PROVIDERS, "example_pay": example_pay()},
    )

    assert found.accounts["example"].provider == "example_pay"


def test_the_code_is_as_tidy_as_the_rest(built):
    ours = 'lint.isort.known-first-party=["providers", "statemachine", "tests"]'
    configured = ["--config", str(ROOT / "pyproject.toml"), "--config", ours, "--no-cache"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *configured, str(built)],
        capture_output=True,
        text=True,
        check=False,
        cwd=built,
    )

    assert done.returncode == 0, done.stdout
