"""`receipted init` and `receipted config`: write first settings, and check them."""

import base64
import json as json_text
import secrets as random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from providers.catalogue import PROVIDERS
from providers.contract import Capability, Provider
from receipted.cli import output
from receipted.cli.exits import InvalidInput, example
from receipted.cli.options import AsJson, load_settings, parse_pairs, subcommands
from receipted.cli.sandbox import SandboxAccount, sandbox_accounts
from receipted.errors import SettingFault
from receipted.settings import load, validate
from receipted.settings.faults import did_you_mean, shape_faults
from receipted.settings.models import AccountSettings, Settings, masked_url
from receipted.startup import rehearse
from receipted.wiring import utc_now
from sandbox.config import SandboxConfig
from storage import private_files

app = subcommands("Check the settings.")


@app.callback()
def group() -> None:
    """Check the settings."""


@app.command(epilog=example("receipted --config receipted.toml config check"))
def check(context: typer.Context, json: AsJson = False) -> None:
    """Report all faults of the settings at once (exit 2), or a masked summary."""
    found = load_settings(context)
    rehearse(found)
    silent = [name for name, account in found.accounts.items() if not account.has_active_key(utc_now())]
    doubtful = [*validate.exposed_secrets(found), *validate.warnings(found)]
    if json:
        warnings = [{"setting": each.setting, "problem": each.problem, "remedy": each.remedy} for each in doubtful]
        shown = {"accounts_without_active_key": silent, "warnings": warnings, "settings": load.describe(found)}
        output.as_json({"ok": True, **shown})
        return
    _summary(found)
    for each in doubtful:
        output.note(f"warning: {each}")
    for name in silent:
        output.note(f"warning: no webhook key of {name} is valid now: its deliveries are all refused")
    output.say("the settings can work")


def _summary(found: Settings) -> None:
    service = found.service
    output.fields(
        {
            "database": masked_url(service.database),
            "listens at": f"{service.listen_host}:{service.listen_port}",
            "public URL": service.public_url,
            "development": service.development,
            "token keys": ", ".join(key.id for key in service.token_keys),
        }
    )
    output.say("")
    output.table(
        ("Account", "Provider", "Called at", "Webhook keys", "Conflicts", "Webhook URL"),
        (
            (
                name,
                account.provider,
                _called_at(found, account),
                ", ".join(key.id for key in account.webhook_keys),
                account.conflicts,
                f"{service.public_url}/webhooks/{name}",
            )
            for name, account in found.accounts.items()
        ),
    )
    output.say("")
    output.table(
        ("Sink", "Kind", "Goes to"),
        ((sink.name, sink.kind, sink.url.reference if sink.url else sink.handler) for sink in found.sinks),
    )
    output.say("")


def _called_at(found: Settings, account: AccountSettings) -> str:
    return account.base_url or found.provider_types()[account.provider].default_base_url


_SECRETS: Final = "secrets"  #: folder of the secrets, beside the settings
_DEVELOPMENT_URL: Final = "http://127.0.0.1:8000"
_RANDOM_BYTES: Final = 32
_LOOPBACK_OPTION: Final = "allow_loopback_http"
#: Of a provider whose signature covers the URL: it follows from ours.
_SIGNED_URL_OPTION: Final = "notification_url"


@dataclass(slots=True)
class FirstSettings:
    """Answers of a person, or of flags, that the first settings are made of."""

    provider: type[Provider]
    account: str
    environment: Literal["live", "test"]
    public_url: str
    shop_url: str
    base_url: str
    database: str
    key_id: str
    options: dict[str, Any]
    references: dict[str, str] = field(
        default_factory=dict
    )  #: of secrets that are kept elsewhere, by their file's name
    values: dict[str, str] = field(default_factory=dict, repr=False)  #: of secrets to write; empty for one to fill in

    @property
    def is_development(self) -> bool:
        """True where the service is reached on this machine alone, by plain HTTP."""
        return self.public_url.startswith("http:")

    @property
    def webhook_url(self) -> str:
        """URL at which the provider delivers."""
        return f"{self.public_url.rstrip('/')}/webhooks/{self.account}"

    def reference(self, name: str) -> str:
        """Return the reference to a secret, for the settings."""
        return self.references.get(name, f"file:{_SECRETS}/{name}")

    def faults(self) -> Iterator[SettingFault]:
        """Yield what is wrong with the answers, named by their options."""
        yield from validate.name_faults("--account", self.account)
        yield from validate.url_faults("--public-url", self.public_url, development=True)
        yield from validate.url_faults("--shop-url", self.shop_url.partition("?")[0], development=self.is_development)
        if self.base_url:
            yield from validate.url_faults("--base-url", self.base_url, development=self.is_development)
        try:
            self.provider.options_type.model_validate(self.options)
        except ValidationError as fault:
            yield from shape_faults(fault, self.provider.options_type, "--option")

    def toml(self) -> str:
        """Return the settings file, with the provider's further options as comments."""
        account = f"accounts.{self.account}"
        lines = [
            "# Written by `receipted init`. receipted.example.toml of the source has every setting with its default.",
            "# Secrets are in files that only their owner can read; env:NAME in place of file:path reads a variable.",
            "",
            "[service]",
            *_pairs({"database": self.database, "public_url": self.public_url, **self._reached()}),
        ]
        for name in ("token_key", "audit_key"):
            lines += ["", f"[[service.{name}s]]", *_pairs({"id": self.key_id, "secret": self.reference(name)})]
        sink = {"name": "shop", "url": self.shop_url, "secrets": [self.reference("shop_sink_key")]}
        lines += ["", "[[sinks]]", *_pairs(sink), "", f"[{account}]"]
        lines += _pairs({"provider": self.provider.name, "environment": self.environment})
        lines += _pairs({"base_url": self.base_url} if self.base_url else {})
        if self.provider.secret_names:
            names = {name: self.reference(f"{self.account}_{name}") for name in self.provider.secret_names}
            lines += ["", f"[{account}.secrets]", *_pairs(names)]
        key = {"id": self.key_id, "secret": self.reference(f"{self.account}_webhook_key")}
        lines += ["", f"[[{account}.webhook_keys]]", *_pairs(key), "", f"[{account}.options]", *self._options()]
        return "\n".join([*lines, ""])

    def _reached(self) -> dict[str, Any]:
        """Return how the service is reached: by a proxy that ends TLS, or on this machine."""
        if not self.is_development:
            return {"trusted_proxies": ["127.0.0.1"]}
        return {"listen_port": urlsplit(self.public_url).port or 80, "development": True}

    def _options(self) -> Iterator[str]:
        yield from _pairs(self.options)
        for name, option in self.provider.options_type.model_fields.items():
            if name in self.options or name == _LOOPBACK_OPTION:
                continue
            default = option.get_default(call_default_factory=True)
            yield f"# {option.description or name}"
            yield f"#{name} = {_toml('' if default is None else default)}"


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value: Any) -> str:
    """Format text, a number, a flag or a list, which TOML writes as JSON does."""
    return json_text.dumps(value)


def init(
    context: typer.Context,
    provider: Annotated[
        str | None, typer.Option("--provider", help="Which; `receipted providers list` has them.", show_default=False)
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option("--public-url", metavar="URL", help="Where providers reach this service.", show_default=False),
    ] = None,
    shop_url: Annotated[
        str | None,
        typer.Option("--shop-url", metavar="URL", help="Where your shop takes our webhooks.", show_default=False),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option("--account", metavar="NAME", help="What to call it.", show_default="the provider's name"),
    ] = None,
    live: Annotated[bool, typer.Option("--live/--test", help="Which of the provider's keys it has.")] = False,
    database: Annotated[
        str, typer.Option("--database", metavar="URL", help="SQLite or PostgreSQL.")
    ] = "sqlite:///var/receipted.db",
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="Where to call the provider.", show_default="its usual URL"),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="NAME=env:X|file:X", help="Where a secret is kept; may be repeated."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="An option of the provider; may be repeated."),
    ] = None,
    sandbox: Annotated[
        str | None,
        typer.Option("--sandbox", metavar="URL", help="Be at `receipted sandbox`, with its keys.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Ask for a provider and two URLs, and write settings with new secrets.

    At a terminal it asks for what no option gives; elsewhere every answer is an option. It never overwrites a file.
    Secrets are files of mode 0600 in the folder secrets, beside the settings; --secret refers to one that is kept
    elsewhere, and webhook_key is the name of the provider's signing key.
    """
    path: Path = context.find_root().params.get("config") or load.DEFAULT_PATH
    asks = _Questions(is_asking=_is_terminal() and not json)
    kind = _provider(asks.text("provider", provider, f"Provider ({', '.join(PROVIDERS)})"))
    played = _played(kind, sandbox)
    public = asks.text("public-url", public_url, "Public URL of this service", _DEVELOPMENT_URL if played else None)
    options = parse_pairs(option or [], option="option")
    if _SIGNED_URL_OPTION in kind.options_type.model_fields:
        options.setdefault(_SIGNED_URL_OPTION, f"{public.rstrip('/')}/webhooks/{account or kind.name}")
    found = FirstSettings(
        provider=kind,
        account=account or kind.name,
        environment="live" if live else "test",
        public_url=public.rstrip("/"),
        shop_url=asks.text("shop-url", shop_url, "URL of the shop that takes our webhooks"),
        base_url=_base_url(kind, played, base_url, asks),
        database=database,
        key_id=f"{utc_now():%Y-%m}",
        options=_given_options(kind, played, options, asks),
    )
    if played or found.base_url.startswith("http:"):
        found.options[_LOOPBACK_OPTION] = True
    if faults := list(found.faults()):
        raise InvalidInput("\n".join(map(str, faults)))
    _choose_secrets(found, played, parse_pairs(secret or [], option="secret"), asks)
    written = _write(found, path)
    _report(found, path, written, as_json=json)


def _is_terminal() -> bool:
    """Return whether stdin is a terminal."""
    return sys.stdin.isatty()


@dataclass(frozen=True, slots=True)
class _Questions:
    """Questions at a terminal; elsewhere a missing answer is wrong usage."""

    is_asking: bool

    def text(self, name: str, given: str | None, question: str, default: str | None = None) -> str:
        """Return the option's value, else the answer; raises InvalidInput for neither."""
        if given is not None:
            return given
        if self.is_asking:
            return str(typer.prompt(question, default=default, err=True))
        if default is not None:
            return default
        raise InvalidInput(f"give --{name}: there is no terminal to ask at", param=name)

    def hidden(self, question: str) -> str:
        """Return a secret that is typed without being shown; empty for later."""
        if not self.is_asking:
            return ""
        return str(typer.prompt(f"{question} (Enter to fill it in later)", default="", hide_input=True, err=True))


def _provider(name: str) -> type[Provider]:
    if name not in PROVIDERS:
        raise InvalidInput(f"no provider {name!r}; {did_you_mean(name, [*PROVIDERS])}", param="provider")
    return PROVIDERS[name]


def _played(kind: type[Provider], url: str | None) -> SandboxAccount | None:
    """Return the sandbox's account at the provider; None where no sandbox is meant."""
    if url is None:
        return None
    accounts = {each.provider: each for each in reversed(sandbox_accounts(url.rstrip("/"), SandboxConfig()))}
    if kind.name not in accounts:
        known = ", ".join(sorted(accounts))
        raise InvalidInput(f"the sandbox does not simulate {kind.name}; it simulates: {known}", param="sandbox")
    return accounts[kind.name]


def _base_url(kind: type[Provider], played: SandboxAccount | None, given: str | None, asks: _Questions) -> str:
    """Return where to call the provider; empty for its usual URL."""
    if given is None and played is not None:
        return played.base_url
    if given is None and kind.default_base_url:
        return ""
    return asks.text("base-url", given, f"URL at which {kind.name} is called")


def _given_options(
    kind: type[Provider], played: SandboxAccount | None, given: Mapping[str, str], asks: _Questions
) -> dict[str, Any]:
    """Return the provider's options that are given, and those without a default."""
    found: dict[str, Any] = {**(played.options if played else {})}
    for name, text in given.items():
        with suppress(ValueError):  # a number or a flag; everything else is text
            found[name] = json_text.loads(text)
            continue
        found[name] = text
    for name, option in kind.options_type.model_fields.items():
        if (option.is_required() or name in kind.required_options) and name not in found:
            found[name] = asks.text(f"option {name}=...", None, option.description or name)
    return found


def _choose_secrets(
    found: FirstSettings, played: SandboxAccount | None, references: Mapping[str, str], asks: _Questions
) -> None:
    """Make what is random, and ask for what the provider has issued."""
    issued = {name: f"{found.provider.name}'s {name}" for name in found.provider.secret_names}
    known = {**(played.secrets if played else {}), **({"webhook_key": played.webhook_key} if played else {})}
    if found.provider.webhook_key_detail is not None and not played:
        known["webhook_key"] = _random_text()  # of our choosing: it goes along when our URL is registered
    for name in references:
        if name not in (*issued, "webhook_key"):
            raise InvalidInput(f"no secret {name!r}; there are: {', '.join((*issued, 'webhook_key'))}", param="secret")
    for name, words in {**issued, "webhook_key": f"Key that {found.provider.name} signs webhooks with"}.items():
        file = f"{found.account}_{name}"
        if name in references:
            if references[name].partition(":")[0] not in ("env", "file"):
                raise InvalidInput(f"--secret {name}= takes env:NAME or file:path, not the secret itself")
            found.references[file] = references[name]
        else:
            found.values[file] = known[name] if name in known else asks.hidden(words)
    found.values["token_key"], found.values["audit_key"] = _random_text(), _random_text()
    key = base64.b64encode(random.token_bytes(_RANDOM_BYTES)).decode()
    found.values["shop_sink_key"] = f"whsec_{key}"


def _random_text() -> str:
    return random.token_urlsafe(_RANDOM_BYTES)


def _write(found: FirstSettings, path: Path) -> list[Path]:
    """Write settings and secrets, all or none; raises InvalidInput if one exists."""
    folder = path.parent / _SECRETS
    contents = {folder / name: f"{value}\n" if value else "" for name, value in sorted(found.values.items())}
    ignore = folder / ".gitignore"
    if existing := [str(each) for each in (path, *contents) if each.exists()]:
        raise InvalidInput(f"nothing was written: {', '.join(existing)} exists already")
    with ExitStack() as undo:
        try:
            private_files.make_folder(folder)
            for file, content in contents.items():
                with private_files.created(file) as target:
                    undo.callback(file.unlink, missing_ok=True)
                    target.write(content.encode())
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            with path.open("x", encoding="utf-8") as settings:
                undo.callback(path.unlink, missing_ok=True)
                settings.write(found.toml())
        except OSError as fault:
            raise InvalidInput(f"cannot write {fault.filename or path}: {fault.strerror}") from None
        undo.pop_all()
    return [*contents]


def _report(found: FirstSettings, path: Path, written: Sequence[Path], *, as_json: bool) -> None:
    """Print what was written, what is left to do, and the next command."""
    to_fill = [file for file in written if not found.values[file.name]]
    config = "" if path == load.DEFAULT_PATH else f"--config {path} "
    following = f"receipted {config}{'config check' if to_fill else 'serve --migrate'}"
    made = found.provider(found.provider.options_type.model_validate(found.options))
    if made.can(Capability.REGISTER):
        register = f"once it runs: receipted {config}webhooks register {found.account}"
    else:
        register = found.provider.how_to_register
    if as_json:
        data = {"settings": path, "secrets": written, "to_fill": to_fill, "webhook_url": found.webhook_url}
        output.as_json({**data, "how_to_register": register, "next": following})
        return
    output.say(f"wrote {path}, and {len(written)} secrets that only you can read in {path.parent / _SECRETS}")
    for file in to_fill:
        output.say(f"fill in   {file}: what {found.provider.name} gave you")
    output.say(f"register  {found.webhook_url}")
    output.say(f"          {register}")
    output.say(f"the shop  verifies our webhooks with {path.parent / _SECRETS / 'shop_sink_key'}")
    output.say(f"keep      a copy of {path.parent / _SECRETS / 'audit_key'} where the backups are not")
    output.say(f"next      {following}")
