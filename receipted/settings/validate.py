"""Validation that types cannot express. Each check yields faults and stops at nothing, so that all are reported."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from fulfilment.broker_sink import DRIVERS, EXTRA, is_installed, require_destination
from fulfilment.brokers import url as urls
from fulfilment.contract import unknown_patterns
from fulfilment.email_sink import is_address, is_printable
from fulfilment.email_sink import read_url as read_mail_url
from fulfilment.errors import InsecureSinkUrl, InvalidSink
from fulfilment.network import tls_context
from providers.contract import Provider
from providers.errors import InsecureUrl
from providers.http import require_https
from receipted.errors import Fault
from receipted.settings.faults import did_you_mean, shape_faults
from receipted.settings.models import (
    AccountSettings,
    Network,
    Settings,
    SinkSettings,
    TokenKey,
    WebhookKey,
    tracing_faults,
)
from receipted.settings.secrets import HOW, MIN_KEY_BYTES, Secret, invisible_end
from statemachine.phases import Alarm, Effect
from storage.errors import DatabaseUnsupported
from storage.postgresql_url import is_postgresql, read_url
from storage.private_files import others_may_read

#: The sink that takes what no other does, for the API's feed.
FEED: Final = "api-feed"


def effects_of(providers: Mapping[str, type[Provider]]) -> tuple[str, ...]:
    """Every effect that there is, by name: of money that comes in, of what else the providers have, and of accounts."""
    lifecycles = [lifecycle for provider in providers.values() for lifecycle in provider.lifecycles.values()]
    names = {lifecycle.effect_name(effect) for lifecycle in lifecycles for effect in Effect}
    return tuple(sorted({*names, *(effect.value for effect in Effect), *(alarm.effect for alarm in Alarm)}))


def told(sinks: Sequence[SinkSettings], providers: Mapping[str, type[Provider]]) -> Iterator[Fault]:
    """Effects that do not exist, and that nobody would learn of a payment."""
    known = effects_of(providers)
    for at, sink in enumerate(sinks):
        if sink.name == FEED:
            yield Fault(f"sinks.{at}.name", "is what the API's feed is called", "give the sink another name")
        if sink.effects is None:
            continue
        if not sink.effects:
            yield Fault(f"sinks.{at}.effects", "is empty: the sink would be told nothing", "name effects, or remove it")
        for wrong in unknown_patterns(sink.effects, known):
            yield Fault(f"sinks.{at}.effects", f"has {wrong!r}, which is no effect", did_you_mean(wrong, known))
    if sinks and not any(sink.takes()(Effect.PAID) for sink in sinks):
        remedy = f"add a sink for the shop, or {Effect.PAID.value!r} to the effects of one"
        yield Fault("sinks", f"take no {Effect.PAID.value}: nobody would learn of a payment", remedy)


#: What only a broker needs.
_OF_BROKERS: Final = ("destination", "authorities")
#: What only a mail server needs.
_OF_EMAIL: Final = ("username", "password", "sender", "recipients")


def https_url(setting: str, url: str, *, development: bool) -> Iterator[Fault]:
    """What is wrong with a URL that must be HTTPS, or in development HTTP on loopback."""
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


def http_sink(setting: str, sink: SinkSettings, *, development: bool) -> Iterator[Fault]:
    """What is wrong with a sink that POSTs."""
    yield from _unused(setting, sink, (*_OF_BROKERS, *_OF_EMAIL))
    if sink.url is None:
        yield Fault(f"{setting}.url", "is missing", "give the https:// URL that effects are sent to")
    elif sink.url.problem:
        yield Fault(f"{setting}.url", sink.url.problem, sink.url.remedy)
    else:  # a query may select what it means to the shop
        yield from https_url(f"{setting}.url", sink.place().partition("?")[0], development=development)
    if sink.handler is not None:
        yield Fault(f"{setting}.handler", "has no meaning for an http sink", 'remove it, or set kind = "python"')
    if not sink.secrets:
        remedy = 'give a list with at least one "env:NAME" or "file:path" of a whsec_ key'
        yield Fault(f"{setting}.secrets", "is missing: the shop could not tell our messages from forged ones", remedy)
    yield from _signing_keys(setting, sink)


def email_sink(setting: str, sink: SinkSettings) -> Iterator[Fault]:
    """What is wrong with a sink that mails; its password is optional, as a relay may know who asks by the network."""
    yield from _unused(setting, sink, ("destination", "handler"))
    if sink.secrets:
        yield Fault(f"{setting}.secrets", "has no meaning for an email sink", "remove it; username and password log in")
    yield from _mail_server(f"{setting}.url", sink)
    if sink.authorities is not None:
        yield from _authorities(f"{setting}.authorities", sink.authorities)
    known: dict[str, str] = {}
    for name, secret in (("username", sink.username), ("password", sink.password)):
        if secret is not None and secret.problem:
            yield Fault(f"{setting}.{name}", secret.problem, secret.remedy)
        known[name] = secret.reveal() if secret is not None and not secret.problem else ""
        if (secret is None) != (sink.username is None and sink.password is None):
            yield Fault(f"{setting}.{name}", "is missing: username and password are given together", HOW)
        elif not is_printable(known[name]):
            yield Fault(f"{setting}.{name}", "has characters that are not printable ASCII", "give one without them")
    if not sink.sender:
        yield Fault(f"{setting}.sender", "is missing", "give the address that the messages are from")
    if not sink.recipients:
        yield Fault(f"{setting}.recipients", "is missing", "give at least one address")
    addresses = [("sender", sink.sender), *((f"recipients.{at}", each) for at, each in enumerate(sink.recipients))]
    for place, address in addresses:
        if address and not is_address(address):
            remedy = "give one such as on-call@example.com, without a name or a comment"
            yield Fault(f"{setting}.{place}", "is no e-mail address that every server takes", remedy)
    if len({each.lower() for each in sink.recipients}) < len(sink.recipients):
        yield Fault(f"{setting}.recipients", "names an address twice", "remove one of them")


def _mail_server(setting: str, sink: SinkSettings) -> Iterator[Fault]:
    if sink.url is None:
        yield Fault(setting, "is missing", "give smtps://host:465, or smtp://host:587 (STARTTLS)")
    elif sink.url.problem:
        yield Fault(setting, sink.url.problem, sink.url.remedy)
    else:
        try:
            read_mail_url(sink.place())
        except InsecureSinkUrl as fault:
            yield Fault(setting, "is no mail server's URL", fault.message)


def broker_sink(setting: str, sink: SinkSettings, allowed: Sequence[Network]) -> Iterator[Fault]:
    """What is wrong with a sink that publishes; its secrets are optional, as the broker knows who publishes."""
    if not is_installed(sink.kind):
        yield Fault(f"{setting}.kind", f"is {sink.kind!r}, whose library is missing", EXTRA)
    if sink.handler is not None:
        yield Fault(f"{setting}.handler", f"has no meaning for a {sink.kind} sink", "remove it")
    yield from _unused(setting, sink, _OF_EMAIL)
    yield from _broker_url(f"{setting}.url", sink, allowed)
    try:
        require_destination(sink.kind, sink.destination or "")
    except InvalidSink as fault:
        problem = "is missing" if not sink.destination else "is no name that such a broker knows"
        yield Fault(f"{setting}.destination", problem, fault.message)
    if sink.authorities is not None:
        yield from _authorities(f"{setting}.authorities", sink.authorities)
    yield from _signing_keys(setting, sink)


def _broker_url(setting: str, sink: SinkSettings, allowed: Sequence[Network]) -> Iterator[Fault]:
    schemes = " or ".join(f"{scheme}://" for scheme in urls.SCHEMES[sink.kind])
    if sink.url is None:
        yield Fault(setting, "is missing", f"give a {schemes} URL")
        return
    if sink.url.problem:
        yield Fault(setting, sink.url.problem, sink.url.remedy)
        return
    if sink.is_url_written and urls.secrets_in(sink.place()):
        remedy = 'give the whole URL as "env:NAME" (an environment variable) or "file:path" (a file)'
        yield Fault(setting, "holds a password, which is never written in the settings", remedy)
        return
    try:
        urls.require_protected(urls.read(sink.kind, sink.place()), allowed)
    except InvalidSink as fault:
        problem = "could be read on the way" if isinstance(fault, InsecureSinkUrl) else "is not usable"
        yield Fault(setting, f"({sink.url.reference}) {problem}", fault.message)


def _authorities(setting: str, given: Secret) -> Iterator[Fault]:
    if given.problem:
        yield Fault(setting, given.problem, given.remedy)
        return
    try:
        tls_context(given.reveal())
    except InvalidSink:
        yield Fault(setting, f"({given.reference}) holds no certificates", "give a file of certificates in PEM")


def _signing_keys(setting: str, sink: SinkSettings) -> Iterator[Fault]:
    seen: set[str] = set()
    for at, secret in enumerate(sink.secrets):
        yield from _sink_secret(f"{setting}.secrets.{at}", secret, seen)


def _unused(setting: str, sink: SinkSettings, names: Sequence[str]) -> Iterator[Fault]:
    for name in names:
        if getattr(sink, name):
            problem = f"has no meaning for {'an' if sink.kind in ('http', 'email') else 'a'} {sink.kind} sink"
            yield Fault(f"{setting}.{name}", problem, "remove it")


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


def python_sink(setting: str, sink: SinkSettings) -> Iterator[Fault]:
    """What is wrong with a sink that calls a function."""
    yield from _unused(setting, sink, (*_OF_BROKERS, *_OF_EMAIL))
    if not sink.handler:
        yield Fault(f"{setting}.handler", "is missing", 'give an entry point\'s name, or "module:function"')
    if sink.url is not None:
        yield Fault(f"{setting}.url", "has no meaning for a python sink", 'remove it, or set kind = "http"')
    if sink.secrets:
        yield Fault(f"{setting}.secrets", "has no meaning for a python sink", 'remove it, or set kind = "http"')


#: Hours of a delivery's window beyond which it bounds nothing: providers repeat what failed within minutes or hours.
MAX_WINDOW_HOURS: Final = 24

#: Bits of a network's length below which it holds strangers, unless it lies in a private range as a whole.
_MIN_PREFIX: Final = {4: 16, 6: 32}

#: Ranges that no stranger of the internet has an address of. Source: IANA, special-purpose address registries.
_PRIVATE: Final = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
)


def exposed(settings: Settings) -> Iterator[Fault]:
    """Secrets in files that others on this machine may read."""
    for setting, secret in settings.secrets():
        if secret.is_exposed:
            file = secret.reference.removeprefix("file:")
            yield Fault(setting, f"is in {file}, which others on this machine may read", f"chmod 600 {file}")


def unwise(settings: Settings) -> Iterator[Fault]:
    """List what is unwise and what would be better, without any secret's value."""
    live = sorted(name for name, account in settings.accounts.items() if account.environment == "live")
    if settings.service.development and live:
        yield Fault(
            "service.development",
            f"is on, and live accounts are configured ({', '.join(live)}): plain HTTP and plain: secrets are permitted",
            'turn it off, or give the accounts environment = "test"',
        )
    if live and not settings.service.audit_keys:
        problem = f"is missing, and live accounts are configured ({', '.join(live)}): who can write rows can forge them"
        yield Fault("service.audit_keys", problem, "add [[service.audit_keys]] with an id and a secret")
    yield from _networks(settings)
    for name, account in settings.accounts.items():
        for setting in ("window_past_seconds", "window_future_seconds"):
            if getattr(account, setting) > MAX_WINDOW_HOURS * 3600:
                problem = f"is more than {MAX_WINDOW_HOURS} hours: an old delivery that somebody kept is still accepted"
                yield Fault(f"accounts.{name}.{setting}", problem, "give what clocks may differ by, such as 300")
    yield from _used_twice(settings)
    yield from _readable(settings)


def _networks(settings: Settings) -> Iterator[Fault]:
    given = (
        (
            "service.trusted_proxies",
            settings.service.trusted_proxies,
            "they may claim any address, and HTTPS",
        ),
        ("metrics.allowed_networks", settings.metrics.allowed_networks, "strangers may read metrics and probes"),
        ("fulfilment.allowed_networks", settings.fulfilment.allowed_networks, "sinks may lead to any machine there"),
    )
    for setting, networks, harm in given:
        for network in networks:
            if _is_huge(network):
                yield Fault(setting, f"has {network}, which holds strangers: {harm}", "name the machines' own networks")


def _is_huge(network: Network) -> bool:
    if network.prefixlen >= _MIN_PREFIX[network.version]:
        return False
    return not any(_lies_in(network, private) for private in _PRIVATE)


def _lies_in(network: Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(other, IPv4Network):
        return network.subnet_of(other)
    return isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and network.subnet_of(other)


def _used_twice(settings: Settings) -> Iterator[Fault]:
    """Find one value for two purposes: a leak of one is a leak of both."""
    first: dict[str, str] = {}
    for setting, secret in settings.secrets():
        if setting.endswith((".username", ".url")):
            continue
        other = first.setdefault(secret.reveal(), setting)
        if other != setting:
            yield Fault(setting, f"({secret.reference}) is the same value as {other}", "give each purpose its own")


def _readable(settings: Settings) -> Iterator[Fault]:
    url = settings.service.database
    file = Path(url.partition(":///")[2].partition("?")[0])
    if not is_postgresql(url) and others_may_read(file):
        yield Fault("service.database", f"is {file}, which others on this machine may read", f"chmod 600 {file}*")


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
