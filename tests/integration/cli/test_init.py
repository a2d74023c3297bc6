"""Settings that `receipted init` writes: whole, with secrets of their own, and never over others."""

import tomllib

import pytest
from typer.testing import CliRunner

from providers.catalogue import PROVIDERS
from receipted.cli import configuration
from receipted.cli.main import app
from receipted.cli.sandbox import sandbox_accounts
from receipted.settings.load import load
from sandbox.config import SandboxConfig

from .conftest import Shell, forget_logs

URLS = ("--public-url", "https://pay.example.com", "--shop-url", "https://shop.example.com/receipted?store=2")
SIMULATED = sorted({account.provider for account in sandbox_accounts("http://127.0.0.1:1", SandboxConfig())})


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path / "receipted.toml")


def base_url(provider):
    """What is asked for where a provider has no usual URL."""
    return () if PROVIDERS[provider].default_base_url else ("--base-url", "https://api.example.com")


def required(provider):
    """What is asked for where a provider needs an option; the URL that is signed follows from ours."""
    names = [name for name in PROVIDERS[provider].required_options if name != "notification_url"]
    return tuple(word for name in names for word in ("--option", f"{name}=given"))


def secrets_of(tmp_path):
    return {path.name: path for path in (tmp_path / "secrets").iterdir() if path.name != ".gitignore"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_is_written_passes_the_check_once_it_is_filled_in(shell, tmp_path, provider):
    """Only what the provider issues is left to a person, and the check names exactly that."""
    written = shell("init", "--provider", provider, *URLS, *base_url(provider), *required(provider), "--json").json
    refused = shell("config", "check", code=2).err if written["to_fill"] else ""
    for at, file in enumerate(written["to_fill"]):
        (tmp_path / "secrets" / file).write_text(f"issued-by-the-provider-{at}\n")
    shell("config", "check")

    assert written["next"].endswith("config check" if written["to_fill"] else "serve --migrate")
    assert refused.count(" is empty (") == len(written["to_fill"])
    assert len(written["to_fill"]) >= len(PROVIDERS[provider].secret_names)
    assert written["webhook_url"] == f"https://pay.example.com/webhooks/{provider}"
    found = load(shell.config, {})
    assert not found.service.development
    assert found.accounts[provider].environment == "test"


@pytest.mark.parametrize("provider", SIMULATED)
def test_an_account_at_the_sandbox_needs_nothing_more(shell, provider):
    """The provider's keys are known there, and plain HTTP on this machine is permitted."""
    here = ("--sandbox", "http://127.0.0.1:8900", "--public-url", "http://127.0.0.1:8123")
    written = shell("init", "--provider", provider, *here, "--shop-url", "http://127.0.0.1:9000/").out
    shell("config", "check")

    assert written.splitlines()[-1] == f"next      receipted --config {shell.config} serve --migrate"
    assert load(shell.config, {}).service.listen_port == 8123


def test_every_secret_is_random_and_for_its_owner_alone(shell, tmp_path):
    shell("init", "--provider", "banked", *URLS, "--live", "--account", "shop-eu")
    secrets = secrets_of(tmp_path)
    made = {name: path.read_text() for name, path in secrets.items() if path.stat().st_size}

    assert {path.stat().st_mode & 0o777 for path in secrets.values()} == {0o600}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert set(made) == {"token_key", "audit_key", "shop_sink_key", "shop-eu_webhook_key"}
    assert len(set(made.values())) == len(made)
    assert min(map(len, made.values())) >= 43  # 256 bits in Base64
    assert not any(value.strip() in shell.config.read_text() for value in made.values())
    assert (tmp_path / "secrets" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("present", ["receipted.toml", "secrets/audit_key"])
def test_nothing_is_overwritten(shell, tmp_path, present):
    """One file in the way, and not one is written."""
    (tmp_path / present).parent.mkdir(exist_ok=True)
    (tmp_path / present).write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*"))

    refused = shell("init", "--provider", "payfield", *URLS, code=2)

    assert present in refused.err
    assert "exists already" in refused.err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / present).read_text() == "mine"


def test_what_was_begun_is_taken_back_when_a_file_cannot_be_written(shell, tmp_path, monkeypatch):
    """A disk that is full at the settings leaves no secret behind that the next run would stumble over."""

    def full(self):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(configuration.FirstSettings, "toml", full)
        refused = shell("init", "--provider", "payfield", *URLS, code=2)

    assert "No space left on device" in refused.err
    assert secrets_of(tmp_path) == {}
    assert not shell.config.exists()
    shell("init", "--provider", "payfield", *URLS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --provider"),
        (["--provider", "payfeld"], "did you mean 'payfield'?"),
        (
            ["--provider", "payfield", "--public-url", "http://pay.example.com", *URLS[2:]],
            "--public-url is not an HTTPS",
        ),
        (
            ["--provider", "payfield", *URLS[:2], "--shop-url", "http://127.0.0.1:9000"],
            "--shop-url is not an HTTPS URL",
        ),
        (["--provider", "payfield", *URLS, "--account", "My Shop"], "--account is not a usable name"),
        (["--provider", "payfield", *URLS, "--option", "dialect=odd"], "--option.dialect"),
        (["--provider", "payfield", *URLS, "--option", "dialekt=new"], "--option.dialekt"),
        (["--provider", "payfield", *URLS, "--secret", "api_kee=env:X"], "no secret 'api_kee'"),
        (["--provider", "payfield", *URLS, "--secret", "api_key=sk_live_1"], "takes env:NAME or file:path"),
    ],
)
def test_a_wrong_answer_is_refused_before_anything_is_written(shell, tmp_path, words, told):
    refused = shell("init", *words, code=2)

    assert told in refused.err
    assert "sk_live_1" not in refused.err
    assert [*tmp_path.iterdir()] == []


def test_a_secret_may_be_kept_elsewhere(shell, tmp_path):
    kept = ("--secret", "api_key=env:PAYFIELD_KEY", "--secret", "webhook_key=file:/run/secrets/hook")
    shell("init", "--provider", "payfield", *URLS, *kept, "--option", "dialect=old")
    account = tomllib.loads(shell.config.read_text())["accounts"]["payfield"]

    assert account["secrets"] == {"api_key": "env:PAYFIELD_KEY", "api_secret": "file:secrets/payfield_api_secret"}
    assert account["webhook_keys"][0]["secret"] == "file:/run/secrets/hook"
    assert account["options"] == {"dialect": "old"}
    assert not {"payfield_api_key", "payfield_webhook_key"} & set(secrets_of(tmp_path))


def test_a_person_is_asked_for_what_no_option_gives(shell, tmp_path, monkeypatch):
    """Each question stands once; what is typed as a secret is not shown, and Enter leaves one for later."""
    monkeypatch.setattr(configuration, "_is_terminal", lambda: True)
    answers = ["banked", "https://pay.example.com/", "https://shop.example.com", "the-api-key", ""]
    result = CliRunner().invoke(app, ["--config", str(shell.config), "init"], input="\n".join([*answers, ""]))
    forget_logs()
    values = {name: path.read_text() for name, path in secrets_of(tmp_path).items()}

    assert result.exit_code == 0, result.output
    assert [result.stderr.count(word) for word in ("Provider (", "Public URL", "URL of the shop", "api_key")] == [1] * 4
    assert "the-api-key" not in result.output
    assert (values["banked_api_key"], values["banked_api_secret"]) == ("the-api-key\n", "")
