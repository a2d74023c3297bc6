"""What types cannot say about settings. Each check yields faults and stops at nothing, so that all are reported."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from providers.contract import Provider
from providers.errors import InsecureUrl
from providers.http import require_https
from receipted.errors import Fault
from receipted.secrets import HOW, MIN_KEY_BYTES, Secret
from receipted.settings_accounts import AccountSettings, TokenKey, WebhookKey
from receipted.settings_sections import Settings, SinkSettings
from receipted.settings_shape import did_you_mean, shape_faults

_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_DATABASES: Final = ("sqlite", "postgresql")
_RANDOM: Final = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def check(settings: Settings, providers: Mapping[str, type[Provider]]) -> Iterator[Fault]:
    """Everything wrong with settings of the right shape."""
    yield from _service(settings)
    yield from _waits(settings)
    yield from _sinks(settings)
    if not settings.accounts:
        yield Fault("accounts", "is missing", "name at least one account at a provider, as [accounts.<name>]")
    for name, account in settings.accounts.items():
        yield from _account(f"accounts.{name}", name, account, providers, development=settings.service.development)
    yield from _shared_webhook_keys(settings.accounts)
    if not settings.service.development:
        for setting, secret in settings.secrets():
            if secret.is_plain:
                yield Fault(setting, "is written in the settings, which is for development only", HOW)


def _service(settings: Settings) -> Iterator[Fault]:
    service = settings.service
    if urlsplit(service.database).scheme.partition("+")[0] not in _DATABASES:
        remedy = 'give a URL such as "sqlite:///var/receipted.db" or "postgresql://host/receipted"'
        yield Fault("service.database", "is no database that is supported", remedy)
    if not service.public_url:
        remedy = 'give the https:// URL at which providers reach this service, such as "https://payments.example.com"'
        yield Fault("service.public_url", "is missing", remedy)
    else:
        yield from _url("service.public_url", service.public_url, development=service.development)
    if not service.token_keys:
        remedy = f"add [[service.token_keys]] with an id and a secret; {_RANDOM}"
        yield Fault("service.token_keys", "is missing: callback and return URLs could not be signed", remedy)
    yield from _keys("service.token_keys", service.token_keys)


def _waits(settings: Settings) -> Iterator[Fault]:
    poller, worker = settings.poller, settings.worker
    if poller.longest_seconds < poller.soonest_seconds:
        remedy = f"give at least poller.soonest_seconds, which is {poller.soonest_seconds:g}"
        yield Fault("poller.longest_seconds", "is shorter than the shortest wait", remedy)
    if poller.retry_longest_seconds < poller.retry_first_seconds:
        remedy = f"give at least poller.retry_first_seconds, which is {poller.retry_first_seconds:g}"
        yield Fault("poller.retry_longest_seconds", "is shorter than the first wait", remedy)
    if worker.retry_longest_seconds < worker.retry_first_seconds:
        remedy = f"give at least worker.retry_first_seconds, which is {worker.retry_first_seconds:g}"
        yield Fault("worker.retry_longest_seconds", "is shorter than the first wait", remedy)


def _url(setting: str, url: str, *, development: bool) -> Iterator[Fault]:
    remedy = "give an https:// URL with a host, without credentials, query or fragment"
    if development:
        remedy += " (or http:// on loopback, since service.development is true)"
    try:
        require_https(url, allow_loopback=development)
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError where it is no number
    except (InsecureUrl, ValueError):
        yield Fault(setting, "is not an HTTPS URL", remedy)
        return
    if parts.query or parts.fragment or parts.username:
        yield Fault(setting, "carries more than a place", remedy)


def _name(setting: str, name: str) -> Iterator[Fault]:
    if not name:
        yield Fault(setting, "is missing", "give it a name of lowercase letters, digits, - and _")
    elif not _NAME.fullmatch(name):
        yield Fault(setting, "is not a usable name", "use lowercase letters, digits, - and _; 64 at most")


def _sinks(settings: Settings) -> Iterator[Fault]:
    if not settings.sinks:
        remedy = (
            'add [[sinks]] with name = "shop", kind = "http", url = "https://shop.example.com/receipted" and '
            'secrets = ["env:SHOP_SINK_KEY"], or kind = "python" with a handler'
        )
        yield Fault("sinks", "is missing: nobody would learn of a payment", remedy)
    seen: set[str] = set()
    for at, sink in enumerate(settings.sinks):
        yield from _name(f"sinks.{at}.name", sink.name)
        if sink.name and sink.name in seen:
            yield Fault(f"sinks.{at}.name", f"is {sink.name!r} like another sink's", "give each sink its own name")
        seen.add(sink.name)
        if sink.kind == "http":
            yield from _http_sink(f"sinks.{at}", sink, development=settings.service.development)
        else:
            yield from _python_sink(f"sinks.{at}", sink)


def _http_sink(setting: str, sink: SinkSettings, *, development: bool) -> Iterator[Fault]:
    if not sink.url:
        yield Fault(f"{setting}.url", "is missing", "give the https:// URL that effects are sent to")
    elif "?" in sink.url:  # a sink's URL may select what it means to the shop
        yield from _url(f"{setting}.url", sink.url.partition("?")[0], development=development)
    else:
        yield from _url(f"{setting}.url", sink.url, development=development)
    if sink.handler is not None:
        yield Fault(f"{setting}.handler", "has no meaning for an http sink", 'remove it, or set kind = "python"')
    if not sink.secrets:
        remedy = 'give a list with at least one "env:NAME" or "file:path" of a whsec_ key'
        yield Fault(f"{setting}.secrets", "is missing: the shop could not tell our messages from forged ones", remedy)
    seen: set[str] = set()
    for at, secret in enumerate(sink.secrets):
        yield from _sink_secret(f"{setting}.secrets.{at}", secret, seen)


def _sink_secret(setting: str, secret: Secret, seen: set[str]) -> Iterator[Fault]:
    if secret.problem:
        yield Fault(setting, secret.problem, secret.remedy)
        return
    value = secret.reveal()
    try:
        raw = base64.b64decode(value.removeprefix("whsec_").encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    # 24 to 64 bytes: https://github.com/standard-webhooks/standard-webhooks, "Signature scheme"
    if not value.startswith("whsec_") or not 24 <= len(raw) <= 64:
        remedy = 'give "whsec_" followed by the Base64 of 24 to 64 random bytes'
        yield Fault(setting, f"({secret.reference}) is not a key of Standard Webhooks", remedy)
    if value in seen:
        yield Fault(setting, f"({secret.reference}) is the same key as another of this sink", "remove one of them")
    seen.add(value)


def _python_sink(setting: str, sink: SinkSettings) -> Iterator[Fault]:
    if not sink.handler:
        yield Fault(f"{setting}.handler", "is missing", 'give an entry point\'s name, or "module:function"')
    if sink.url is not None:
        yield Fault(f"{setting}.url", "has no meaning for a python sink", 'remove it, or set kind = "http"')
    if sink.secrets:
        yield Fault(f"{setting}.secrets", "has no meaning for a python sink", 'remove it, or set kind = "http"')


def _keys(setting: str, keys: Iterable[TokenKey]) -> Iterator[Fault]:
    """Each key has an id of its own and a secret that is long enough and used once."""
    ids: set[str] = set()
    values: dict[str, int] = {}
    for at, key in enumerate(keys):
        if not key.id:
            yield Fault(f"{setting}.{at}.id", "is missing", "name the key, for example by when it was made")
        elif key.id in ids:
            yield Fault(f"{setting}.{at}.id", f"is {key.id!r} like another key's", "give each key its own id")
        ids.add(key.id)
        place = f"{setting}.{at}.secret"
        if key.secret.problem:
            yield Fault(place, key.secret.problem, key.secret.remedy)
            continue
        if key.secret.size() < MIN_KEY_BYTES:
            problem = f"({key.secret.reference}) has {key.secret.size()} bytes, which can be guessed"
            yield Fault(place, problem, f"use a key of at least {MIN_KEY_BYTES} bytes; {_RANDOM}")
        first = values.setdefault(key.secret.reveal(), at)
        if first != at:
            problem = f"({key.secret.reference}) is the same key as {setting}.{first}.secret"
            yield Fault(place, problem, "remove one of them, or give each its own key")


def _account(
    setting: str, name: str, account: AccountSettings, providers: Mapping[str, type[Provider]], *, development: bool
) -> Iterator[Fault]:
    yield from _name(setting, name)
    if account.base_url is not None:
        yield from _url(f"{setting}.base_url", account.base_url, development=development)
    if not account.webhook_keys:
        remedy = f"add [[{setting}.webhook_keys]] with an id and a secret"
        yield Fault(f"{setting}.webhook_keys", "is missing: every delivery would be refused", remedy)
    yield from _keys(f"{setting}.webhook_keys", account.webhook_keys)
    for at, key in enumerate(account.webhook_keys):
        yield from _validity(f"{setting}.webhook_keys.{at}", key)
    for secret_name, secret in account.secrets.items():
        if secret.problem:
            yield Fault(f"{setting}.secrets.{secret_name}", secret.problem, secret.remedy)
    provider = providers.get(account.provider)
    if provider is None:
        problem = "is missing" if not account.provider else f"is {account.provider!r}, which is no provider known here"
        remedy = did_you_mean(account.provider, providers)
        yield Fault(f"{setting}.provider", problem, remedy)
        return
    yield from _provider_secrets(f"{setting}.secrets", account, provider)
    if account.options.get("allow_loopback_http") and not development:
        problem = "permits plain HTTP, which is for development only"
        yield Fault(f"{setting}.options.allow_loopback_http", problem, "remove it, or set service.development to true")
    try:
        provider.options_type.model_validate(account.options)
    except ValidationError as fault:
        yield from shape_faults(fault, provider.options_type, f"{setting}.options")


def _validity(setting: str, key: WebhookKey) -> Iterator[Fault]:
    if key.not_before and key.not_after and key.not_before >= key.not_after:
        yield Fault(
            f"{setting}.not_after", "is not after not_before, so that the key never verifies", "give a later one"
        )


def _provider_secrets(setting: str, account: AccountSettings, provider: type[Provider]) -> Iterator[Fault]:
    for wanted in provider.secret_names:
        if wanted not in account.secrets:
            yield Fault(f"{setting}.{wanted}", f"is missing: {provider.name} is called with it", HOW)
    for given in account.secrets:
        if given not in provider.secret_names:
            yield Fault(
                f"{setting}.{given}",
                f"is no secret that {provider.name} uses",
                did_you_mean(given, provider.secret_names),
            )


def _shared_webhook_keys(accounts: Mapping[str, AccountSettings]) -> Iterator[Fault]:
    """Two accounts of one provider with one key would accept each other's deliveries."""
    owners: dict[tuple[str, str], str] = {}
    for name, account in accounts.items():
        for at, key in enumerate(account.webhook_keys):
            if key.secret.problem:
                continue
            owner = owners.setdefault((account.provider, key.secret.reveal()), name)
            if owner != name:
                problem = f"({key.secret.reference}) is the same key as one of accounts.{owner}"
                remedy = "give each account its own key: otherwise each would accept the other's deliveries"
                yield Fault(f"accounts.{name}.webhook_keys.{at}.secret", problem, remedy)
