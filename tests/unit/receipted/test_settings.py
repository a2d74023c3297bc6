"""What refuses to start, and in which words; what overrides what."""

import copy
import json
import math
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from pydantic import BaseModel

from providers.contract import Budget
from receipted.errors import ConfigurationError
from receipted.settings.load import describe, load, parse, settings_path, warn
from receipted.settings.models import AccountSettings, Settings, masked_url
from receipted.settings.validate import warnings
from receipted.wiring import PROVIDERS, account_of, budget_of, provider_of
from statemachine.errors import ServiceError
from statemachine.phases import ConflictPolicy

ENVIRONMENT = {
    "TOKEN": "token-key-of-32-bytes-0123456789",
    "HOOK": "hook-key-of-32-bytes-01234567890",
    "HOOK2": "hook-key-of-32-bytes-other-67890",
    "SINK": "whsec_" + "QUJD" * 8,
    "SINK2": "whsec_" + "REVG" * 8,
    "API": "api-key-value",
    "API_SECRET": "api-secret-value",
    "SHORT": "fifteen-bytes-x",
    "EMPTY": "",
    "AUDIT": "audit-key-of-32-bytes-0123456789",
}

GOOD = {
    "service": {
        "public_url": "https://pay.example.com/",
        "token_keys": [{"id": "t1", "secret": "env:TOKEN"}],
        "audit_keys": [{"id": "a1", "secret": "env:AUDIT"}],
    },
    "sinks": [{"name": "shop", "kind": "http", "url": "https://shop.example.com/in", "secrets": ["env:SINK"]}],
    "accounts": {
        "shop": {
            "provider": "payfield",
            "secrets": {"api_key": "env:API", "api_secret": "env:API_SECRET"},
            "webhook_keys": [{"id": "w1", "secret": "env:HOOK"}],
        }
    },
}


MAIL = {
    "name": "mail",
    "kind": "email",
    "url": "smtps://mail.example.com:465",
    "username": "env:API",
    "password": "env:PASS",
    "sender": "r@example.com",
    "recipients": ["a@example.com"],
}


def changed(*changes):
    """GOOD with values put at paths; a path's last step may append to a list by "+"."""
    data = copy.deepcopy(GOOD)
    for path, value in changes:
        *way, last = path.split(".")
        place = data
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if last == "+":
            place.append(value)
        elif value is None:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return data


def faults(*changes):
    with pytest.raises(ConfigurationError) as caught:
        parse(changed(*changes), environ=ENVIRONMENT)
    for value in ENVIRONMENT.values():
        assert not value or value not in str(caught.value) + repr(caught.value) + repr(caught.value.faults)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return {fault.setting: fault for fault in caught.value.faults}


def test_good_settings_are_what_they_say():
    settings = parse(GOOD, environ=ENVIRONMENT)
    account = settings.accounts["shop"]
    assert settings.service.public_url == "https://pay.example.com"
    assert settings.service.token_secrets() == (("t1", ENVIRONMENT["TOKEN"]),)
    assert settings.service.audit_secrets() == (("a1", ENVIRONMENT["AUDIT"].encode()),)
    assert account.keyring().keys[0].secret == ENVIRONMENT["HOOK"].encode()
    assert account.window().past == timedelta(seconds=300)
    assert account.conflict_policy() is ConflictPolicy.REVIEW
    assert set(settings.secret_values()) == {
        ENVIRONMENT[name] for name in ("TOKEN", "AUDIT", "HOOK", "SINK", "API", "API_SECRET")
    }


def test_the_catalogue_puts_an_account_together():
    account = parse(
        changed(("accounts.shop.options", {"dialect": "old"}), ("accounts.shop.budget", {"requests": 3, "seconds": 2})),
        environ=ENVIRONMENT,
    ).accounts["shop"]
    provider = provider_of(account)
    assert provider.options.dialect == "old"
    assert account_of("shop", account, provider).secrets["api_key"] == "api-key-value"
    assert account_of("shop", account, provider).base_url == PROVIDERS["payfield"].default_base_url
    assert budget_of(account, provider) == Budget(3, 2)
    assert {name: provider.name for name, provider in PROVIDERS.items()} == {name: name for name in PROVIDERS}


def test_a_provider_that_signs_nothing_needs_no_webhook_key():
    """PayPal's deliveries are not believed, so that there is nothing to verify them with."""
    account = {"provider": "paypal", "secrets": {"client_id": "env:API", "client_secret": "env:API_SECRET"}}
    settings = parse(changed(("accounts.shop", account)), environ=ENVIRONMENT)
    assert settings.accounts["shop"].keyring().keys == ()


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_is_one_that_settings_may_name(name):
    """Its options and secrets are all that an account needs."""
    needed = dict.fromkeys(PROVIDERS[name].secret_names, "env:API")
    url = "https://pay.example.com/webhooks/shop"
    options = {option: url if option.endswith("_url") else "given" for option in PROVIDERS[name].required_options}
    account = {"provider": name, "secrets": needed, "options": options, "base_url": "https://api.example.com"}
    account["webhook_keys"] = [{"id": "w1", "secret": "env:HOOK"}]
    assert provider_of(parse(changed(("accounts.shop", account)), environ=ENVIRONMENT).accounts["shop"]).name == name


def test_a_server_of_the_merchants_own_needs_its_url():
    """BTCPay Server has no URL that all accounts share."""
    account = {"provider": "btcpay", "secrets": {"api_key": "env:API"}, "webhook_keys": OTHER_KEYS}
    account["options"] = {"store_id": "store1"}
    (fault,) = faults(("accounts.shop", account)).values()
    assert fault.setting == "accounts.shop.base_url"
    parse(changed(("accounts.shop", account | {"base_url": "https://btcpay.example.com"})), environ=ENVIRONMENT)


def test_an_option_that_verification_needs_is_demanded():
    """Square signs the URL: without it nothing would be accepted."""
    account = {"provider": "square", "secrets": {"access_token": "env:API"}, "webhook_keys": OTHER_KEYS}
    (fault,) = faults(("accounts.shop", account)).values()
    assert fault.setting == "accounts.shop.options.notification_url"
    assert "exactly as it is registered" in fault.remedy


OTHER_KEYS = [{"id": "w1", "secret": "env:HOOK"}]
SINK2 = {"name": "shop", "kind": "http", "url": "https://shop.example.com/b", "secrets": ["env:SINK2"]}
OTHER = {**GOOD["accounts"]["shop"], "webhook_keys": [{"id": "w1", "secret": "env:HOOK"}]}
EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "setting", "problem", "remedy"),
    [
        ([("service.public_url", None)], "service.public_url", "missing", "https://"),
        ([("service.public_url", "http://pay.example.com")], "service.public_url", "HTTPS", "https://"),
        ([("service.public_url", "http://127.0.0.1:1")], "service.public_url", "HTTPS", "https://"),
        ([("service.public_url", "https://u:p@pay.example.com")], "service.public_url", "HTTPS", "credentials"),
        ([("service.public_url", "https://pay.example.com/?a=1")], "service.public_url", "more than", "query"),
        ([("service.public_url", "https://pay.example.com:x/")], "service.public_url", "HTTPS", "https://"),
        ([("service.database", "mysql://h/d")], "service.database", "no database", "postgresql://"),
        ([("service.database", "postgresql://a:b:c/d")], "service.database", "host:port", "postgresql://"),
        ([("service.listen_port", 70_000)], "service.listen_port", "65535", "port to listen at"),
        ([("service.listen_prot", 1)], "service.listen_prot", "not a setting", "'listen_port'"),
        ([("servic", {})], "servic", "not a setting", "'service'"),
        ([("service.trusted_proxies", ["10.0.0.1/8"])], "service.trusted_proxies.0", "network", "proxies"),
        ([("service.trusted_proxies", [7])], "service.trusted_proxies.0", "network", "proxies"),
        ([("service.token_keys", [])], "service.token_keys", "missing", "token_urlsafe"),
        ([("service.token_keys", 7)], "service.token_keys", "list", "keys of callback"),
        ([("service.token_keys.0.secret", "env:SHORT")], "service.token_keys.0.secret", "15 bytes", "16 bytes"),
        ([("service.token_keys.0.secret", None)], "service.token_keys.0.secret", "missing", "env:NAME"),
        ([("service.token_keys.0.id", None)], "service.token_keys.0.id", "missing", "name the key"),
        (
            [("service.token_keys.+", {"id": "t1", "secret": "env:HOOK2"})],
            "service.token_keys.1.id",
            "like another",
            "own id",
        ),
        (
            [("service.token_keys.+", {"id": "t2", "secret": "env:TOKEN"})],
            "service.token_keys.1.secret",
            "same key as service.token_keys.0.secret",
            "own key",
        ),
        ([("log", {"level": "loud"})], "log.level", "'debug', 'info', 'warning' or 'error'", "least severe"),
        ([("poller", {"worth_seconds": 0})], "poller.worth_seconds", "greater than 0", "default: 2"),
        ([("poller", {"worth_seconds": float("nan")})], "poller.worth_seconds", "finite", "default: 2"),
        ([("poller", {"longest_seconds": 4})], "poller.longest_seconds", "shorter", "5"),
        ([("poller", {"retry_longest_seconds": 9})], "poller.retry_longest_seconds", "shorter", "15"),
        ([("worker", {"retry_longest_seconds": 0.5})], "worker.retry_longest_seconds", "shorter", "is 1"),
        ([("sinks", [])], "sinks", "missing", 'secrets = ["env:SHOP_SINK_KEY"]'),
        ([("sinks", [5])], "sinks.0", "table", "where effects go"),
        ([("sinks.+", SINK2)], "sinks.1.name", "like another", "own name"),
        ([("sinks.0.name", "Shop Front")], "sinks.0.name", "not a usable name", "lowercase"),
        ([("sinks.0.name", None)], "sinks.0.name", "missing", "lowercase"),
        ([("sinks.0.kind", "smtp")], "sinks.0.kind", "'http', 'python', 'nats'", "webhook"),
        ([("sinks.0.url", None)], "sinks.0.url", "missing", "https://"),
        ([("sinks.0.url", "http://shop.example.com/?a=1")], "sinks.0.url", "HTTPS", "https://"),
        ([("sinks.0.handler", "a:b")], "sinks.0.handler", "no meaning", "python"),
        ([("sinks.0.secrets", None)], "sinks.0.secrets", "forged", "env:NAME"),
        ([("sinks.0.secrets.0", "env:TOKEN")], "sinks.0.secrets.0", "Standard Webhooks", "whsec_"),
        ([("sinks.0.secrets.0", "env:UNSET")], "sinks.0.secrets.0", "UNSET, which is not set", "set it"),
        ([("sinks.0.secrets.+", "env:SINK")], "sinks.0.secrets.1", "same key", "remove"),
        ([("sinks.0", {"name": "code", "kind": "python"})], "sinks.0.handler", "missing", "module:function"),
        ([("sinks.0.kind", "python"), ("sinks.0.handler", "a:b")], "sinks.0.url", "no meaning", "http"),
        ([("sinks.0.kind", "python"), ("sinks.0.handler", "a:b")], "sinks.0.secrets", "no meaning", "http"),
        ([("accounts", {})], "accounts", "missing", "[accounts.<name>]"),
        ([("accounts.Shop!", OTHER)], "accounts.Shop!", "not a usable name", "lowercase"),
        ([("accounts.shop.provider", None)], "accounts.shop.provider", "missing", "payfield"),
        ([("accounts.shop.provider", "payfeild")], "accounts.shop.provider", "no provider", "'payfield'"),
        ([("accounts.shop.base_url", "http://api.example.com")], "accounts.shop.base_url", "HTTPS", "https://"),
        ([("accounts.shop.secrets.api_key", None)], "accounts.shop.secrets.api_key", "missing", "env:NAME"),
        ([("accounts.shop.secrets.api_kye", "env:API")], "accounts.shop.secrets.api_kye", "no secret", "'api_key'"),
        ([("accounts.shop.secrets.api_key", "env:EMPTY")], "accounts.shop.secrets.api_key", "empty", "not empty"),
        ([("accounts.shop.webhook_keys", [])], "accounts.shop.webhook_keys", "refused", "webhook_keys"),
        (
            [("accounts.shop.webhook_keys.0.secret", "env:EMPTY")],
            "accounts.shop.webhook_keys.0.secret",
            "empty",
            "not empty",
        ),
        (
            [("accounts.shop.webhook_keys.0.secret", "env:SHORT")],
            "accounts.shop.webhook_keys.0.secret",
            "15 bytes",
            "16 bytes",
        ),
        (
            [("accounts.shop.webhook_keys.+", {"id": "w2", "secret": "env:HOOK"})],
            "accounts.shop.webhook_keys.1.secret",
            "same key as accounts.shop.webhook_keys.0.secret",
            "own key",
        ),
        (
            [("accounts.shop.webhook_keys.+", {"id": "w1", "secret": "env:HOOK2"})],
            "accounts.shop.webhook_keys.1.id",
            "like another",
            "own id",
        ),
        ([("accounts.two", OTHER)], "accounts.two.webhook_keys.0.secret", "one of accounts.shop", "own key"),
        (
            [("accounts.shop.webhook_keys.0.not_before", datetime(2026, 1, 1))],  # noqa: DTZ001 - the fault itself
            "accounts.shop.webhook_keys.0.not_before",
            "no time zone",
            "Z",
        ),
        (
            [("accounts.shop.webhook_keys.0.not_before", LATE), ("accounts.shop.webhook_keys.0.not_after", EARLY)],
            "accounts.shop.webhook_keys.0.not_after",
            "never verifies",
            "later",
        ),
        ([("accounts.shop.window_past_seconds", -1)], "accounts.shop.window_past_seconds", "equal to 0", "300"),
        ([("accounts.shop.budget", {"requests": 1})], "accounts.shop.budget.seconds", "missing", "seconds"),
        ([("accounts.shop.conflicts", "ignore")], "accounts.shop.conflicts", "'review' or", "confirms a conflict"),
        ([("accounts.shop.options.dialekt", "old")], "accounts.shop.options.dialekt", "not a setting", "'dialect'"),
        ([("accounts.shop.options.dialect", "odd")], "accounts.shop.options.dialect", "'new' or 'old'", "amounts"),
        ([("service.token_keys.0.secret", "plain:" + "x" * 32)], "service.token_keys.0.secret", "development", "env:"),
        ([("service.token_keys.0.secret", "x" * 32)], "service.token_keys.0.secret", "literal", "env:NAME"),
        ([("service.token_keys.0.secret", 5)], "service.token_keys.0.secret", "not text", "env:NAME"),
    ],
)
def test_each_fault_names_its_setting_and_what_would_be_right(changes, setting, problem, remedy):
    found = faults(*changes)
    assert problem in found[setting].problem
    assert remedy in found[setting].remedy
    others = {name for name in found if name != setting}
    # a sink turned into another kind has two settings too many; nothing else may be reported twice
    assert others <= {"sinks.0.url", "sinks.0.secrets", "accounts.Shop!.webhook_keys.0.secret"}


def test_all_faults_are_reported_at_once():
    found = faults(
        ("service.public_url", None),
        ("service.listen_port", "many"),
        ("service.token_keys.+", 5),
        ("service.token_keys.+", {"id": "t1", "secret": "env:TOKEN"}),
        ("sinks.0.url", 5),
        ("accounts.shop.webhook_keys.0.id", []),
        ("accounts.shop.provider", "payfild"),
        ("accounts.more", {"provider": "payfield", "webhook_keys": [{"id": "x", "secret": "env:HOOK", "no": 1}]}),
        ("accounts.odd", 7),
    )
    assert set(found) >= {
        "service.public_url",
        "service.listen_port",
        "service.token_keys.1",
        "service.token_keys.2.id",
        "service.token_keys.2.secret",
        "sinks.0.url",
        "accounts.shop.webhook_keys.0.id",
        "accounts.shop.provider",
        "accounts.more.webhook_keys.0.no",
        "accounts.more.secrets.api_key",
        "accounts.more.secrets.api_secret",
        "accounts.odd",
    }


def test_the_message_lists_each_fault_on_a_line_of_its_own():
    with pytest.raises(ServiceError) as caught:
        parse({}, environ={})
    lines = str(caught.value).splitlines()
    assert lines[0] == "the settings have 4 faults:"
    assert [line.split()[1] for line in lines[1:]] == ["service.public_url", "service.token_keys", "sinks", "accounts"]
    assert caught.value.code == "invalid_configuration"


def test_two_accounts_of_different_providers_may_share_a_key():
    other = {"provider": "stable_genius", "secrets": {"api_key": "env:API"}, "webhook_keys": OTHER["webhook_keys"]}
    assert set(parse(changed(("accounts.two", other)), environ=ENVIRONMENT).accounts) == {"shop", "two"}


def test_development_permits_loopback_and_plain_secrets():
    data = changed(
        ("service.development", True),
        ("service.public_url", "http://127.0.0.1:8000"),
        ("sinks.0.url", "http://localhost:9000/in"),
        ("accounts.shop.base_url", "http://[::1]:7000/"),
        ("accounts.shop.webhook_keys.0.secret", "plain:" + "p" * 32),
    )
    settings = parse(data, environ=ENVIRONMENT)
    assert settings.accounts["shop"].base_url == "http://[::1]:7000"
    assert settings.accounts["shop"].keyring().keys[0].secret == b"p" * 32
    assert "pppp" not in json.dumps(describe(settings)) + repr(settings)


def test_development_permits_plain_http_nowhere_but_on_loopback():
    found = faults(("service.development", True), ("service.public_url", "http://pay.example.com"))
    assert "on loopback" in found["service.public_url"].remedy


def test_keys_rotate_by_their_instants():
    old = {"id": "old", "secret": "env:HOOK", "not_after": LATE}
    new = {"id": "new", "secret": "env:HOOK2", "not_before": EARLY}
    account = parse(changed(("accounts.shop.webhook_keys", [old, new])), environ=ENVIRONMENT).accounts["shop"]

    def active(now):
        return [key.id for key in account.keyring().active(now)]

    tick = timedelta(microseconds=1)
    assert active(EARLY - tick) == ["old"]
    assert active(EARLY) == ["old", "new"]
    assert active(LATE - tick) == ["old", "new"]
    assert active(LATE) == ["new"]
    assert account.has_active_key(LATE)


def test_nothing_shows_a_secret():
    settings = parse(
        changed(("service.database", "postgresql://app:db-password@db.example.com/receipted?sslpassword=other")),
        environ=ENVIRONMENT,
    )
    for shown in (repr(settings), str(settings), settings.model_dump_json(), json.dumps(describe(settings))):
        for value in (*settings.secret_values(), "sslpassword=other"):
            assert value not in shown
        assert "env:HOOK" in shown
    assert "db-password" in set(settings.secret_values())
    assert describe(settings)["service"]["database"] == "postgresql://***@db.example.com/receipted?sslpassword=***"
    assert settings.service.database.startswith("postgresql://app:db-password@")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=any", "postgresql://***@h1:5432,h2:5433/db?*"),
        ("postgresql://u:p@[::1]:5432,[2001:db8::7]/db", "postgresql://***@[::1]:5432,[2001:db8::7]/db"),
        ("postgresql://[::1],[2001:db8::7]/db", "postgresql://[::1],[2001:db8::7]/db"),
        ("postgresql://u:pa/ss@h/db", "postgresql://***@h/db"),
        ("postgresql://u:pa#ss@h/db", "postgresql://***@h/db"),
        ("postgresql://u:pa?ss@h/db", "postgresql://***"),
        ("https://shop.example/effects?key=v#part", "https://shop.example/effects?key=***"),
        ("u:p@h", "u:***"),
    ],
)
def test_a_url_is_shown_without_what_it_carries(url, shown):
    """Every server is shown, and no password, however it is written."""
    assert masked_url(url) == shown.replace("?*", "?target_session_attrs=***")


TOML = """
[service]
public_url = "https://pay.example.com"
token_keys = [{ id = "t1", secret = "env:TOKEN" }]
[[sinks]]
name = "shop"
url = "https://shop.example.com/in"
secrets = ["file:keys/sink"]
[accounts.shop]
provider = "payfield"
secrets = { api_key = "env:API", api_secret = "env:API_SECRET" }
webhook_keys = [{ id = "w1", secret = "env:HOOK", not_after = 2030-01-01T00:00:00Z }]
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "keys").mkdir()
    sink = tmp_path / "keys" / "sink"
    sink.write_text(ENVIRONMENT["SINK"] + "\n")
    sink.chmod(0o600)
    path = tmp_path / "receipted.toml"
    path.write_text(TOML)
    return path


def test_files_of_secrets_lie_beside_the_settings(file):
    settings = load(file, ENVIRONMENT)
    assert settings.sinks[0].secrets[0].reveal() == ENVIRONMENT["SINK"]
    assert settings.accounts["shop"].webhook_keys[0].not_after == datetime(2030, 1, 1, tzinfo=UTC)


def test_the_environment_goes_before_the_file(file):
    over = {
        "RECEIPTED_SERVICE__LISTEN_PORT": "9000",
        "receipted_poller__worth_seconds": "2.5",
        "RECEIPTED_SERVICE__TRUSTED_PROXIES": '["10.0.0.0/8"]',
        "RECEIPTED_ACCOUNTS__SHOP__CONFLICTS": "trust_provider",
        "RECEIPTED_ACCOUNTS__SHOP__OPTIONS__DIALECT": "old",
        "RECEIPTED_ACCOUNTS__SHOP__WEBHOOK_KEYS": '[{"id": "w2", "secret": "env:HOOK2"}]',
        "RECEIPTED_SINKS": '[{"name": "code", "kind": "python", "handler": "shop:received"}]',
    }
    settings = load(file, {**ENVIRONMENT, **over})
    account = settings.accounts["shop"]
    assert (settings.service.listen_port, settings.poller.worth_seconds) == (9000, 2.5)
    assert [str(network) for network in settings.service.trusted_proxies] == ["10.0.0.0/8"]
    assert (account.conflicts, account.options, account.webhook_keys[0].id) == (
        "trust_provider",
        {"dialect": "old"},
        "w2",
    )
    assert [sink.name for sink in settings.sinks] == ["code"]
    assert settings.service.public_url == "https://pay.example.com"


def test_a_variable_that_overrides_nothing_is_a_fault(file):
    over = {
        "RECEIPTED_SERVCE__LISTEN_PORT": "1",
        "RECEIPTED_POLLER__GROWHT": "2",
        "RECEIPTED_SINKS": "[{secret-that-is-not-json",
        "RECEIPTED_SERVICE_HOST": "10.0.0.1",  # Kubernetes sets such a variable
    }
    with pytest.raises(ConfigurationError) as caught:
        load(file, {**ENVIRONMENT, **over})
    found = {fault.setting: fault for fault in caught.value.faults}
    assert set(found) == {"the variable RECEIPTED_SERVCE__LISTEN_PORT", "poller.growht", "sinks"}
    assert "JSON" in found["sinks"].remedy
    assert "secret-that" not in str(caught.value)


def test_the_process_environment_is_the_default(file, monkeypatch):
    for name, value in {**ENVIRONMENT, "RECEIPTED_CONFIG": str(file)}.items():
        monkeypatch.setenv(name, value)
    assert load().service.token_secrets() == (("t1", ENVIRONMENT["TOKEN"]),)


def test_which_file_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings_path(environ={}) is None
    (tmp_path / "receipted.toml").touch()
    assert str(settings_path(environ={})) == "receipted.toml"
    assert str(settings_path(environ={"RECEIPTED_CONFIG": "other.toml"})) == "other.toml"
    assert settings_path(tmp_path, {"RECEIPTED_CONFIG": "other.toml"}) == tmp_path


@pytest.mark.parametrize(
    ("content", "problem"), [(b"service = [", "not TOML"), (b"a = '\xff'", "not TOML"), (None, "does not exist")]
)
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path, content, problem):
    path = tmp_path / "receipted.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=problem):
        load(path, {})


def test_a_file_that_others_may_read_is_a_warning(file):
    (file.parent / "keys" / "sink").chmod(0o644)
    with structlog.testing.capture_logs() as lines:
        warn(load(file, ENVIRONMENT))
    assert [line for line in lines if line["event"] == "settings.file_exposed"] == [
        {"event": "settings.file_exposed", "setting": "sinks.0.secrets.0", "file": "keys/sink", "log_level": "warning"}
    ]


#: Every place of GOOD that takes a secret, and that of others: (changes, the setting that is told).
PLACES = [
    ([("service.token_keys.0.secret", "env:SEEN")], "service.token_keys.0.secret"),
    ([("sinks.0.secrets.0", "env:SEEN")], "sinks.0.secrets.0"),
    ([("sinks.0.url", "env:SEEN")], "sinks.0.url"),
    ([("sinks.0.url", "https://shop.example.com/in\u200b")], "sinks.0.url"),
    ([("accounts.shop.secrets.api_key", "env:SEEN")], "accounts.shop.secrets.api_key"),
    ([("accounts.shop.webhook_keys.0.secret", "env:SEEN")], "accounts.shop.webhook_keys.0.secret"),
    ([("metrics", {"token": "env:SEEN"})], "metrics.token"),
    ([("tracing", {"endpoint": "http://127.0.0.1:4318/v1/traces", "headers": "env:SEEN"})], "tracing.headers"),
    ([("sinks.+", {**MAIL, "username": "env:SEEN"})], "sinks.1.username"),
    ([("sinks.+", {**MAIL, "password": "env:SEEN"})], "sinks.1.password"),
    ([("sinks.+", {**MAIL, "authorities": "env:SEEN"})], "sinks.1.authorities"),
]


@pytest.mark.parametrize("value", ["{}\n", "\ufeff{}", "{} ", " {}", "{}\u200b"])
@pytest.mark.parametrize(("changes", "setting"), PLACES, ids=[setting for _, setting in PLACES])
def test_every_secret_is_refused_with_its_place_for_what_nobody_sees_in_it(monkeypatch, changes, setting, value):
    held = value.format("a-secret-of-enough-bytes-0001")
    monkeypatch.setitem(ENVIRONMENT, "SEEN", held)
    monkeypatch.setitem(ENVIRONMENT, "PASS", "mail-pass-word")

    found = faults(*changes)

    assert "cannot be seen" in found[setting].problem
    assert "a-secret-of-enough" not in str(found[setting])


@pytest.mark.parametrize(
    "path", ["service.public_url", "service.database", "service.listen_host", "accounts.shop.base_url"]
)
def test_every_text_is_refused_for_what_nobody_sees_at_its_end(path):
    texts = {"service.public_url": "https://pay.example.com\n", "service.database": "sqlite:///a.db\n"}

    with pytest.raises(ConfigurationError) as caught:
        parse(changed((path, texts.get(path, "https://x.example\u200b"))), environ=ENVIRONMENT)

    assert any(fault.setting == path and "cannot be seen" in fault.problem for fault in caught.value.faults)


def test_a_key_that_no_header_can_carry_is_refused(monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "SEEN", "first\nsecond")
    found = faults(("accounts.shop.secrets.api_key", "env:SEEN"))

    assert "no header can carry" in found["accounts.shop.secrets.api_key"].problem


@pytest.mark.parametrize("url", ["sqlite://", "sqlite://a.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///?a=b"])
def test_a_sqlite_url_without_a_file_is_refused(url):
    assert "names no file" in faults(("service.database", url))["service.database"].problem


KEY, SECRET, HOOK = "accounts.shop.secrets.api_key", "accounts.shop.secrets.api_secret", "accounts.shop.webhook_keys.0"

UNWISE = {
    "live accounts without a key of seals": ([("service.audit_keys", [])], "service.audit_keys"),
    "development with live accounts": ([("service.development", True)], "service.development"),
    "proxies of everything": ([("service.trusted_proxies", ["0.0.0.0/0"])], "service.trusted_proxies"),
    "proxies of half of everything": ([("service.trusted_proxies", ["128.0.0.0/1"])], "service.trusted_proxies"),
    "proxies of everything in IPv6": ([("service.trusted_proxies", ["::/0"])], "service.trusted_proxies"),
    "a provider's huge network": ([("service.trusted_proxies", ["2000::/3"])], "service.trusted_proxies"),
    "sinks anywhere": ([("fulfilment", {"allowed_networks": ["0.0.0.0/0"]})], "fulfilment.allowed_networks"),
    "metrics for all": ([("metrics", {"allowed_networks": ["0.0.0.0/0"]})], "metrics.allowed_networks"),
    "a window of years": ([("accounts.shop.window_past_seconds", 1e8)], "accounts.shop.window_past_seconds"),
    "a window of years ahead": ([("accounts.shop.window_future_seconds", 1e8)], "accounts.shop.window_future_seconds"),
    "one secret of an account twice": ([(SECRET, "env:API")], SECRET),
    "one secret for sinks and providers": (
        [("sinks.0.secrets.0", "env:SINK"), ("accounts.shop.secrets.api_key", "env:SINK")],
        "accounts.shop.secrets.api_key",
    ),
    "one secret for tokens and deliveries": (
        [("accounts.shop.webhook_keys.0.secret", "env:TOKEN")],
        "accounts.shop.webhook_keys.0.secret",
    ),
}


@pytest.mark.parametrize("kind", UNWISE)
def test_what_is_unwise_is_told_with_its_place_and_starts(kind):
    changes, setting = UNWISE[kind]
    found = parse(changed(*changes), environ=ENVIRONMENT)

    assert [each.setting for each in warnings(found)] == [setting]
    with structlog.testing.capture_logs() as lines:
        warn(found)
    assert [(line["event"], line["setting"]) for line in lines] == [("settings.warning", setting)]
    assert not [value for value in ENVIRONMENT.values() if value and value in repr(lines)]


WISE = [
    ("service.trusted_proxies", ["127.0.0.1", "10.0.0.0/8", "172.16.0.0/12", "fd00::/8", "203.0.113.0/24"]),
    ("accounts.shop.window_past_seconds", 86_400),
    ("accounts.shop.environment", "test"),
]


@pytest.mark.parametrize(("path", "value"), WISE)
def test_what_is_usual_is_told_nobody(path, value):
    assert list(warnings(parse(changed((path, value)), environ=ENVIRONMENT))) == []


def test_a_database_that_others_may_read_is_told(tmp_path):
    file = tmp_path / "a.db"
    file.touch(mode=0o644)
    found = parse(changed(("service.database", f"sqlite:///{file}")), environ=ENVIRONMENT)
    assert [each.setting for each in warnings(found)] == ["service.database"]

    file.chmod(0o600)
    assert list(warnings(found)) == []


def test_where_no_file_is_found_that_is_told_first_and_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load(None, {})

    assert caught.value.faults[0].setting == "a settings file"
    assert str(tmp_path / "receipted.toml") in caught.value.faults[0].problem
    assert "RECEIPTED_CONFIG" in caught.value.faults[0].problem
    assert caught.value.message.splitlines()[1].startswith("- a settings file was not found")


def test_settings_without_a_file_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {f"RECEIPTED_{name.upper()}": json.dumps(value) for name, value in GOOD.items()}

    assert load(None, {**ENVIRONMENT, **given}).sinks[0].name == "shop"


def test_defaults_need_no_context():
    assert Settings().service.database == "sqlite:///var/receipted.db"


def spans():
    """Every setting that is a span of seconds, by its full name."""

    def within(model, prefix):
        for name, field in model.model_fields.items():
            if name.endswith("_seconds"):
                yield f"{prefix}{name}"
            elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from within(field.annotation, f"{prefix}{name}.")

    return [*within(Settings, ""), *within(AccountSettings, "accounts.shop.")]


@pytest.mark.parametrize("setting", spans())
@pytest.mark.parametrize("seconds", [1e300, math.inf, 1e10])
def test_no_span_is_longer_than_a_clock_can_be_moved_by(setting, seconds):
    """Each is refused in words, and none overflows when it is added to an instant."""
    is_list = setting.endswith(("late_checks_seconds", "schedule_seconds"))
    with pytest.raises(ConfigurationError) as refused:
        parse(changed((setting, [seconds] if is_list else seconds)), environ=ENVIRONMENT)
    assert any(fault.setting.startswith(setting) for fault in refused.value.faults)
