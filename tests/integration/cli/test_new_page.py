"""`receipted providers new` writes a page that loads, can be used, and is not proved."""

import base64
from hmac import digest

import pytest

from providers.contract import Delivery, Statement
from providers.engine import page
from providers.engine.proof import prove
from providers.engine.provider import declared
from providers.signing import Key, KeyRing, Window
from statemachine.phases import Phase, Source
from tests.contract.providers.provider_contract import NOW

from .conftest import Shell

BASE = ("--base-url", "https://api.acme.com")


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path / "receipted.toml")


def made(tmp_path):
    return declared(page.read(tmp_path / "pages" / "acme.toml")).with_options()


@pytest.mark.parametrize("signature", ["hmac", "standard_webhooks", "none"])
@pytest.mark.parametrize("unit", ["minor", "major"])
def test_a_first_page_loads_and_is_not_proved(shell, tmp_path, signature, unit):
    """The check names what is missing, and nothing is wrong."""
    told = shell("providers", "new", "acme", *BASE, "--signature", signature, "--unit", unit).out
    provider = made(tmp_path)
    proof = prove(provider)
    assert (provider.name, proof.faults, proof.is_proved) == ("acme", (), False)
    assert "no sample shows a payment that is paid" in proof.money_unproved
    assert (tmp_path / "pages" / "samples").is_dir()
    assert told.splitlines()[-1] == "receipted providers check pages/acme.toml"
    checked = shell("providers", "check", "pages/acme.toml", code=1).out
    assert checked.splitlines()[-1].startswith("acme: not proved by 0 vectors, 0 samples")


def test_the_scheme_is_that_which_was_asked_for(shell, tmp_path):
    """A delivery that is signed by Standard Webhooks is accepted and read."""
    shell("providers", "new", "acme", *BASE, "--signature", "standard_webhooks")
    body = b'{"type":"payment.paid","data":{"id":"p1","status":"paid","amount":1000,"currency":"EUR"}}'
    stamp = str(int(NOW.timestamp()))
    signature = base64.b64encode(digest(b"k" * 24, f"m1.{stamp}.".encode() + body, "sha256")).decode()
    told = (("webhook-id", "m1"), ("webhook-timestamp", stamp), ("webhook-signature", f"v1,{signature}"))
    key = b"whsec_" + base64.b64encode(b"k" * 24)
    provider = made(tmp_path)
    assert provider.verify(Delivery(body, told), KeyRing((Key("k", key),)), Window(), NOW).key_id == "k"
    (seen,) = provider.parse(Statement(Source.WEBHOOK, body, NOW)).observations
    assert (seen.provider_ref, seen.status, seen.amount_minor) == ("p1", "paid", 1000)


def test_words_and_phases_are_those_that_were_given(shell, tmp_path):
    """In their order: each may become any later one, and the last one ends asking."""
    given = ("--state", "neu=open", "--state", "in Arbeit=processing", "--state", "storniert=cancelled!")
    shell("providers", "new", "acme", *BASE, *given, "--state", "bezahlt=paid", "--title", 'Acme "Zahl"')
    provider = made(tmp_path)
    lifecycle = provider.lifecycles["payment"]
    assert lifecycle.initial == ("neu",)
    assert lifecycle.phase("bezahlt") is Phase.PAID
    assert lifecycle.is_terminal("bezahlt")
    assert lifecycle.moves["in Arbeit"] == ("storniert", "bezahlt")
    assert provider.title == 'Acme "Zahl"'


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("Acme",), "is no name"),
        (("acme", "--state", "paid=payed"), "'payed' is no phase"),
        (("acme", "--state", "paid"), "state"),
    ],
)
def test_what_cannot_be_a_page_is_refused_and_nothing_is_written(shell, tmp_path, words, told):
    """The message says what is wrong with which word."""
    refused = shell("providers", "new", *words, *BASE, code=2)
    assert told in refused.err
    assert [*tmp_path.iterdir()] == []


def test_a_program_is_told_where_the_page_is(shell):
    """With the entry that the settings need."""
    told = shell("providers", "new", "acme", *BASE, "--json").json
    assert told == {"page": "pages/acme.toml", "setting": "file:pages/acme.toml"}


def test_a_page_that_is_there_is_left_as_it_is(shell, tmp_path):
    """A second call overwrites nothing."""
    shell("providers", "new", "acme", *BASE)
    before = (tmp_path / "pages" / "acme.toml").read_text()
    refused = shell("providers", "new", "acme", "--base-url", "https://other.example", code=2)
    assert "exists, and is left as it is" in refused.err
    assert (tmp_path / "pages" / "acme.toml").read_text() == before
