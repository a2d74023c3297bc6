"""docs/adding-a-provider.md is executed: its page is proved, keeps the contract, creates, and can be used."""

import asyncio
import base64
import hmac
import json
import re
import tomllib
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from providers.contract import Account, CreateRequest, Delivery, HttpAnswer, Statement
from providers.engine import page
from providers.engine.provider import declared
from providers.errors import ProviderError
from providers.signing import Key, KeyRing, Window
from receipted.cli.main import app
from receipted.errors import ConfigurationError
from receipted.settings.load import parse
from statemachine.phases import Source
from tests.contract.providers.provider_contract import CHECKS, Answered, Case

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-provider.md"
BLOCK = re.compile(r"^```(?:toml|json)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CHARGE = b'{"id":"ch_1","order":"order-17","status":"%s","amount":"10.00","currency":"EUR"}'
NOW = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)


@pytest.fixture
def built(tmp_path):
    """The folder with the page's files."""
    for path, text in BLOCK.findall(PAGE.read_text()):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.rstrip("\n") if file.suffix == ".json" else text)
    return tmp_path


def example_pay(built):
    return declared(page.read(built / "pages" / "example_pay.toml")).with_options()


def settings(built, *, environment="live", **account):
    return parse(
        {
            "service": {
                "public_url": "https://payments.example.com",
                "development": True,
                "token_keys": [{"id": "1", "secret": "plain:0123456789abcdef"}],
            },
            **tomllib.loads((built / "receipted.toml").read_text()),
            "sinks": [{"name": "shop", "kind": "python", "handler": "shop:received"}],
            "accounts": {
                "example": {
                    "provider": "example_pay",
                    "environment": environment,
                    "secrets": {"api_key": "plain:a-key"},
                    "webhook_keys": [{"id": "1", "secret": "plain:fedcba9876543210"}],
                    **account,
                }
            },
        },
        base=built,
    )


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


def sign(secret, body, at):
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret, stamp.encode() + b"." + body, sha256).hexdigest()
    return {"Example-Time": stamp, "Example-Signature": digest}


def test_the_check_is_green(built):
    done = CliRunner().invoke(app, ["providers", "check", str(built / "pages" / "example_pay.toml")])
    assert (done.exit_code, done.output.splitlines()[-1]) == (
        0,
        "example_pay: proved by 1 vectors, 3 samples; 2 points unproved",
    )


def test_the_provider_keeps_the_contract(built):
    def answered(status, source=Source.POLL):
        return Answered(kind="charge", ref="ch_1", status=status, body=CHARGE % status.encode(), source=source)

    paid = (built / "pages" / "samples" / "event_paid.json").read_bytes()
    case = Case(
        provider=example_pay(built),
        sign=sign,
        body=paid,
        other_body=paid.replace(b"ev_1", b"ev_2"),
        redelivered=paid + b" ",
        answers=(answered("waiting", Source.CREATE), *map(answered, ("waiting", "paid", "failed", "refunded"))),
        bodies=(paid,),
    )
    for check in CHECKS:
        check(case)


def test_a_provider_may_sign_by_standard_webhooks(built):
    """The three lines in place of the example's own signature."""
    text = (built / "pages" / "example_pay.toml").read_text()
    signature = text[text.index("[signature]") : text.index("[[events.rule]]")]
    scheme = (built / "pages" / "standard_webhooks.toml").read_text()
    text = text[: text.index("[[vector]]")].replace(signature, scheme)
    provider = declared(page.parse(text, "example_pay.toml", built / "pages")).with_options()
    secret = b"whsec_" + base64.b64encode(b"k" * 24)
    stamp, body = str(int(NOW.timestamp())), (built / "pages" / "samples" / "event_paid.json").read_bytes()
    digest = hmac.digest(b"k" * 24, f"msg_1.{stamp}.".encode() + body, "sha256")
    told = {"webhook-id": "msg_1", "webhook-timestamp": stamp}
    told["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    delivery = Delivery(body, tuple(told.items()))

    assert provider.verify(delivery, KeyRing((Key("k", secret),)), Window(), NOW).provider_time == NOW
    assert provider.delivery_key(delivery) == "msg_1"


@pytest.mark.parametrize("secret", ["fedcba9876543210!", "whsec_***", "whsk_AAAA", "whpk_AAAA"])
def test_a_key_of_another_form_is_found_at_the_start(built, secret):
    """It would verify nothing, and every delivery would be refused."""
    file = built / "pages" / "example_pay.toml"
    text = file.read_text()
    signature = text[text.index("[signature]") : text.index("[[events.rule]]")]
    scheme = (built / "pages" / "standard_webhooks.toml").read_text()
    file.write_text(text.replace(signature, scheme))
    keys = [{"id": "1", "secret": f"plain:{secret}"}]
    with pytest.raises(ConfigurationError) as refused:
        settings(built, environment="test", webhook_keys=keys)
    assert "accounts.example.webhook_keys.0.secret is no key of example_pay" in str(refused.value)
    assert secret not in str(refused.value)
    right = "whsec_" + base64.b64encode(b"k" * 24).decode()
    assert settings(built, environment="test", webhook_keys=[{"id": "1", "secret": f"plain:{right}"}]).accounts


def test_what_is_created_is_read_back(built):
    provider = example_pay(built)
    body = b'{"id":"ch_1","order":"order-17","status":"waiting","amount":"10.00","currency":"EUR","page":"https://x.example"}'
    transport = Recorder(201, body)
    request = CreateRequest("charge", 1000, "EUR", "order-17", "key-1", return_url="https://shop.example.com/thanks")
    answer = asyncio.run(client(provider, transport).create(request))
    seen = provider.parse(Statement(Source.CREATE, answer.body, NOW, answer.kind)).observations[0]
    ((method, url, headers, content),) = transport.sent

    assert (method, url) == ("POST", "https://api.example.com/charges")
    assert headers["idempotency-key"] == "key-1"
    assert headers["authorization"] == "Bearer a-key"
    assert json.loads(content)["amount"] == "10.00"
    assert (seen.provider_ref, seen.reference, seen.amount_minor, seen.currency) == ("ch_1", "order-17", 1000, "EUR")
    assert seen.facts == {"url": "https://x.example"}


def test_an_error_is_named(built):
    with pytest.raises(ProviderError) as caught:
        asyncio.run(client(example_pay(built), Recorder(404, b"")).fetch("charge", "ch_2"))

    assert caught.value.type == "not_found_error"
    assert not caught.value.may_retry


def test_the_settings_take_the_page(built):
    assert settings(built).provider_types()["example_pay"].source.digest == example_pay(built).source.digest


def test_a_live_account_at_an_unproved_page_is_refused_unless_that_is_accepted(built):
    file = built / "pages" / "example_pay.toml"
    file.write_text(file.read_text().replace("[[vector]]", "[[sample]]\n[[vector]]").partition("[[sample]]")[0])
    with pytest.raises(ConfigurationError) as refused:
        settings(built)
    assert "the page of example_pay is not proved: no vector shows a signature" in str(refused.value)
    assert settings(built, environment="test").accounts
    assert settings(built, accept_unproved=True).accounts


def test_a_wrong_page_is_told_with_file_and_line(built):
    file = built / "pages" / "example_pay.toml"
    file.write_text(file.read_text().replace("base_url", "base_uri"))
    with pytest.raises(ConfigurationError) as refused:
        settings(built)
    assert "example_pay.toml:5: unknown key 'base_uri'; did you mean 'base_url'?" in str(refused.value)


def test_two_providers_of_one_name_are_refused(built):
    file = built / "receipted.toml"
    file.write_text(file.read_text().replace('"]', '", "file:pages/example_pay.toml"]'))
    with pytest.raises(ConfigurationError) as refused:
        settings(built)
    assert "there is a provider 'example_pay' already" in str(refused.value)
