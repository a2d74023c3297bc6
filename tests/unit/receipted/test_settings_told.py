"""Sinks that mail, and what a sink is told: what refuses to start, in which words, and what nobody gets to see."""

import json

import pytest

from fulfilment.apprise_sink import AppriseSink
from fulfilment.email_sink import EmailSink
from receipted.errors import ConfigurationError
from receipted.settings.load import describe, parse
from receipted.wiring import Service
from tests.unit.receipted.test_settings import ENVIRONMENT, GOOD

HERE = {**ENVIRONMENT, "MAIL_USER": "mail-user", "MAIL_PASSWORD": "mail-pass-word", "BROKEN": "mail-pass\x07-word"}
HERE |= {"CHAT": "jsons://chat.example.com/chat-token-7", "CHAT_CLEAR": "json://chat.example.com/chat-token-7"}
MAIL = {
    "name": "on_call",
    "kind": "email",
    "url": "smtps://mail.example.com",
    "username": "env:MAIL_USER",
    "password": "env:MAIL_PASSWORD",
    "sender": "receipted@example.com",
    "recipients": ["on-call@example.com"],
}
SHOP = GOOD["sinks"][0]


def parsed(*sinks, **changes):
    return parse({**GOOD, "sinks": list(sinks), **changes}, environ=HERE)


def faults(*sinks):
    with pytest.raises(ConfigurationError) as caught:
        parsed(*sinks)
    assert "mail-pass-word" not in str(caught.value) + repr(caught.value.faults)
    return {fault.setting: f"{fault.problem}; {fault.remedy}" for fault in caught.value.faults}


def test_it_is_wired_and_told_alarms_and_reviews_only(tmp_path):
    settings = parsed(SHOP, MAIL, service={**GOOD["service"], "database": f"sqlite:///{tmp_path / 'r.db'}"})
    service = Service(settings)
    try:
        assert isinstance(service.sink(settings.sinks[1]), EmailSink)
        takes = service.inbox_worker()._settings.takes
        effects = ("payment.paid", "account.silent", "payout.review_required")
        assert [takes("on_call", effect) for effect in effects] == [False, True, True]
        assert all(takes(SHOP["name"], effect) for effect in effects)
    finally:
        service.close()


def test_neither_its_password_nor_its_username_is_described():
    settings = parsed(SHOP, MAIL)
    told = json.dumps(describe(settings)) + repr(settings)
    assert "mail-pass-word" not in told
    assert "mail-user" not in told
    assert "mail-pass-word" in set(settings.secret_values())
    assert "mail-user" not in set(settings.secret_values())


@pytest.mark.parametrize(
    ("change", "setting", "words"),
    [
        ({"url": None}, "url", "is missing; give smtps://host:465, or smtp://host:587 (STARTTLS)"),
        ({"url": "https://mail.example.com"}, "url", "is no mail server's URL"),
        ({"url": "smtps://u:mail-pass-word@mail.example.com"}, "url", "is no mail server's URL"),
        ({"password": None}, "password", "is missing: username and password are given together"),
        ({"username": None}, "username", "is missing: username and password are given together"),
        ({"password": "env:BROKEN"}, "password", "has characters that are not printable ASCII"),
        ({"password": "env:NOWHERE"}, "password", "NOWHERE"),
        ({"sender": None}, "sender", "is missing"),
        ({"sender": "Receipted <r@example.com>"}, "sender", "is no e-mail address"),
        ({"recipients": []}, "recipients", "is missing"),
        ({"recipients": ["a@example.com", "b@example.com\nBcc: c@d.e"]}, "recipients.1", "is no e-mail address"),
        ({"recipients": ["a@example.com", "A@example.com"]}, "recipients", "names an address twice"),
        ({"handler": "x:y"}, "handler", "has no meaning for an email sink"),
        ({"destination": "x"}, "destination", "has no meaning for an email sink"),
        ({"secrets": ["env:SINK"]}, "secrets", "has no meaning for an email sink"),
        ({"effects": ["account.silent", "payment.payed"]}, "effects", "did you mean 'payment.paid'?"),
        ({"effects": []}, "effects", "is empty"),
    ],
)
def test_what_cannot_work_is_refused_by_name(change, setting, words):
    sink = {name: value for name, value in (MAIL | change).items() if value is not None}
    found = faults(SHOP, sink)
    assert list(found) == [f"sinks.1.{setting}"]
    assert words in found[f"sinks.1.{setting}"]


def test_an_unknown_effect_names_those_that_there_are():
    found = faults(SHOP, {**MAIL, "effects": ["zzz"]})["sinks.1.effects"]
    for name in ("account.silent", "payment.paid", "payout.review_required", "refund.paid"):
        assert name in found


@pytest.mark.parametrize("sinks", [[MAIL], [{**SHOP, "effects": ["payout.*"]}]])
def test_somebody_must_learn_of_a_payment(sinks):
    assert "no system would learn of a payment" in faults(*sinks)["sinks"]


def test_what_no_sink_takes_is_owed_to_the_feed_while_the_api_is_on():
    narrow = {**SHOP, "effects": ["payment.*", "refund.review_required"]}
    feed = parsed(narrow, MAIL).sinks[-1]
    takes = feed.takes()
    assert (feed.name, feed.kind, feed.handler) == ("api-feed", "python", "api.feed_only:keep")
    assert [takes(name) for name in ("refund.paid", "payout.failed", "payout.review_closed")] == [True, True, False]
    assert not any(takes(name) for name in ("payment.paid", "refund.review_closed", "account.silent"))

    assert [sink.name for sink in parsed(narrow, MAIL, api={"enabled": False}).sinks] == [SHOP["name"], "on_call"]
    assert [sink.name for sink in parsed(SHOP, MAIL).sinks] == [SHOP["name"], "on_call"]


def test_the_feeds_name_is_its_own():
    assert list(faults({**SHOP, "name": "api-feed"})) == ["sinks.0.name"]


@pytest.mark.parametrize("name", ["username", "sender", "recipients"])
def test_other_sinks_have_no_use_for_it(name):
    assert f"sinks.0.{name}" in faults({**SHOP, name: MAIL[name]})


def test_a_password_is_not_written_in_the_settings():
    with pytest.raises(ConfigurationError) as caught:
        parsed(SHOP, {**MAIL, "password": "plain:mail-pass-word"}, service={**GOOD["service"], "development": False})
    assert "sinks.1.password" in {fault.setting for fault in caught.value.faults}
    assert "mail-pass-word" not in str(caught.value)


CHAT = {"name": "chat", "kind": "apprise", "url": "env:CHAT"}


def test_a_chat_is_wired_and_told_alarms_and_reviews_only(tmp_path):
    settings = parsed(SHOP, CHAT, service={**GOOD["service"], "database": f"sqlite:///{tmp_path / 'r.db'}"})
    service = Service(settings)
    try:
        assert isinstance(service.sink(settings.sinks[1]), AppriseSink)
        takes = service.inbox_worker()._settings.takes
        effects = ("payment.paid", "account.silent", "payout.review_required")
        assert [takes("chat", effect) for effect in effects] == [False, True, True]
    finally:
        service.close()


def test_the_url_of_a_chat_is_a_secret_as_a_whole():
    settings = parsed(SHOP, CHAT)
    told = json.dumps(describe(settings)) + repr(settings)
    assert "chat-token-7" not in told
    assert "env:CHAT" in told
    assert {"chat-token-7", HERE["CHAT"]} <= set(settings.secret_values())


@pytest.mark.parametrize(
    ("change", "setting", "words"),
    [
        ({"authorities": "file:x.pem"}, "authorities", "has no meaning for an apprise sink"),
        ({"destination": "x"}, "destination", "has no meaning for an apprise sink"),
        ({"handler": "x:y"}, "handler", "has no meaning for an apprise sink"),
        ({"recipients": ["a@example.com"]}, "recipients", "has no meaning for an apprise sink"),
        ({"secrets": ["env:SINK"]}, "secrets", "has no meaning for an apprise sink"),
        ({"url": "env:CHAT_CLEAR"}, "url", "could be read on the way"),
        ({"url": "env:MAIL_USER"}, "url", "Apprise knows no such URL"),
        ({"url": "env:NOTHING"}, "url", "NOTHING"),
        ({"url": "jsons://chat.example.com/chat-token-7"}, "url", "never written in the settings"),
        ({"url": None}, "url", "is missing"),
    ],
)
def test_a_chat_that_cannot_work_is_refused(change, setting, words):
    sink = {name: value for name, value in (CHAT | change).items() if value is not None}
    found = faults(SHOP, sink)
    assert words in found[f"sinks.1.{setting}"]
    assert "chat-token-7" not in str(found)


def test_without_the_extra_it_says_which_to_install(monkeypatch):
    monkeypatch.setattr("fulfilment.apprise_sink.is_installed", lambda: False)
    assert 'pip install "receipted[alarms]"' in faults(SHOP, CHAT)["sinks.1.kind"]


OIDC = {
    "issuer": "https://login.example.com",
    "client_id": "receipted",
    "client_secret": "env:MAIL_PASSWORD",
    "operators": ["payments"],
}


def test_a_provider_of_log_ins_is_read_and_its_secret_hidden():
    settings = parsed(SHOP, oidc=OIDC)
    assert settings.oidc.operators == ("payments",)
    assert "mail-pass-word" in set(settings.secret_values())
    assert "mail-pass-word" not in json.dumps(describe(settings)) + repr(settings)


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_secret": None}, "client_secret"),
        ({"client_secret": "env:NOTHING"}, "client_secret"),
        ({"issuer": "http://login.example.com"}, "issuer"),
        ({"issuer": None}, "issuer"),
        ({"operators": []}, "viewers"),
    ],
)
def test_a_provider_of_log_ins_that_cannot_work_is_refused(change, setting):
    given = {name: value for name, value in (OIDC | change).items() if value is not None}
    with pytest.raises(ConfigurationError) as caught:
        parsed(SHOP, oidc=given)
    assert f"oidc.{setting}" in {fault.setting for fault in caught.value.faults}
    assert "mail-pass-word" not in str(caught.value)
