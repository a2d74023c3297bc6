"""What types cannot say about settings. Each check yields faults and stops at nothing, so that all are reported."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pydantic import BaseModel, ValidationError

from fulfilment.broker_sink import DRIVERS
from providers.contract import Provider
from receipted.errors import Fault
from receipted.secrets import HOW, MIN_KEY_BYTES, invisible_end
from receipted.settings_accounts import AccountSettings, TokenKey, WebhookKey
from receipted.settings_sections import Settings
from receipted.settings_shape import did_you_mean, shape_faults
from receipted.settings_sinks import broker_sink, email_sink, http_sink, https_url, python_sink
from receipted.settings_told import told
from receipted.settings_tracing import tracing_faults
from storage.errors import DatabaseUnsupported
from storage.postgresql_url import is_postgresql, read_url

#: Ten years: an instant so far ahead still has a place in every column and calendar.
_MAX_SPAN_S: Final = 315_360_000

#: The URL of a SQLite database in a file: one in memory is another for each connection, and gone at the end.
_SQLITE_FILE: Final = re.compile(r"[^:]+:///(?!:memory:)[^?]")

_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_RANDOM: Final = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def check(settings: Settings, providers: Mapping[str, type[Provider]]) -> Iterator[Fault]:
    """Everything wrong with settings of the right shape."""
    yield from _texts("", settings.model_dump(mode="json"))
    yield from _service(settings)
    yield from _metrics(settings)
    yield from tracing_faults(settings.tracing)
    yield from _spans(settings, "")
    yield from _waits(settings)
    yield from _sinks(settings)
    yield from told(settings.sinks, providers)
    if not settings.accounts:
        yield Fault("accounts", "is missing", "name at least one account at a provider, as [accounts.<name>]")
    for name, account in settings.accounts.items():
        yield from _account(f"accounts.{name}", name, account, providers, development=settings.service.development)
    yield from _shared_webhook_keys(settings.accounts)
    if not settings.service.development:
        for setting, secret in settings.secrets():
            if secret.is_plain:
                yield Fault(setting, "is written in the settings, which is for development only", HOW)


def _texts(setting: str, value: object) -> Iterator[Fault]:
    """Find texts, at any depth, that begin or end with what nobody sees."""
    if isinstance(value, str):
        found = invisible_end(value)
        if found:
            yield Fault(setting, found, "remove it: it would be part of the value")
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _texts(f"{setting}.{name}" if setting else str(name), item)


def _service(settings: Settings) -> Iterator[Fault]:
    service = settings.service
    yield from _database(service.database)
    if not service.public_url:
        remedy = 'give the https:// URL at which providers reach this service, such as "https://payments.example.com"'
        yield Fault("service.public_url", "is missing", remedy)
    else:
        yield from https_url("service.public_url", service.public_url, development=service.development)
    if not service.token_keys:
        remedy = f"add [[service.token_keys]] with an id and a secret; {_RANDOM}"
        yield Fault("service.token_keys", "is missing: callback and return URLs could not be signed", remedy)
    yield from _keys("service.token_keys", service.token_keys)
    yield from _keys("service.audit_keys", service.audit_keys)
    for at, retired in enumerate(service.audit_retired_key_ids):
        account, slash, key_id = retired.partition("/")
        if not (account and slash and key_id):
            remedy = 'give the account and the id of the key, such as "shop/2024-01"'
            yield Fault(f"service.audit_retired_key_ids.{at}", "names no key of an account", remedy)


def _spans(section: BaseModel, prefix: str) -> Iterator[Fault]:
    """No span is longer than a clock can be moved by."""
    for name in type(section).model_fields:
        value, setting = getattr(section, name), f"{prefix}{name}"
        parts = list(
            value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple) else ()
        )
        for key, part in parts:
            if isinstance(part, BaseModel):
                yield from _spans(part, f"{setting}.{key}.")
        if isinstance(value, BaseModel):
            yield from _spans(value, f"{setting}.")
        numbers = [value, *(part for _, part in parts)] if name.endswith("_seconds") else []
        if any(isinstance(number, int | float) and not number <= _MAX_SPAN_S for number in numbers):
            yield Fault(setting, "is longer than ten years", f"give at most {_MAX_SPAN_S:,} seconds")


def _metrics(settings: Settings) -> Iterator[Fault]:
    token = settings.metrics.token
    if token is None:
        return
    if token.problem:
        yield Fault("metrics.token", token.problem, token.remedy)
    elif token.size() < MIN_KEY_BYTES:
        problem = f"({token.reference}) has {token.size()} bytes, which can be guessed"
        yield Fault("metrics.token", problem, f"use a token of at least {MIN_KEY_BYTES} bytes; {_RANDOM}")


def _database(url: str) -> Iterator[Fault]:
    remedy = 'give a URL such as "sqlite:///var/receipted.db" or "postgresql://host/receipted"'
    if is_postgresql(url):
        try:
            read_url(url)
        except DatabaseUnsupported as fault:
            yield Fault("service.database", f"is wrong: {fault.message}", remedy)
    elif url.partition(":")[0].partition("+")[0] != "sqlite":
        yield Fault("service.database", "is no database that is supported", remedy)
    elif not _SQLITE_FILE.match(url):
        problem = "names no file: sqlite:// is followed by a third slash and a path, or by four and an absolute one"
        yield Fault("service.database", problem, remedy)


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
        if sink.kind in DRIVERS:
            yield from broker_sink(f"sinks.{at}", sink, settings.fulfilment.allowed_networks)
        elif sink.kind == "http":
            yield from http_sink(f"sinks.{at}", sink, development=settings.service.development)
        elif sink.kind == "email":
            yield from email_sink(f"sinks.{at}", sink)
        else:
            yield from python_sink(f"sinks.{at}", sink)


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
        yield from https_url(f"{setting}.base_url", account.base_url, development=development)
    if not account.webhook_keys:
        remedy = f"add [[{setting}.webhook_keys]] with an id and a secret"
        yield Fault(f"{setting}.webhook_keys", "is missing: every delivery would be refused", remedy)
    yield from _keys(f"{setting}.webhook_keys", account.webhook_keys)
    for at, key in enumerate(account.webhook_keys):
        yield from _validity(f"{setting}.webhook_keys.{at}", key)
    for secret_name, secret in account.secrets.items():
        if secret.problem:
            yield Fault(f"{setting}.secrets.{secret_name}", secret.problem, secret.remedy)
        elif not secret.reveal().isprintable():
            problem = f"({secret.reference}) holds a line break or another character that no header can carry"
            yield Fault(f"{setting}.secrets.{secret_name}", problem, "give the value in one line, as it was issued")
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
