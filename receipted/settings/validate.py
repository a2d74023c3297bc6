"""Validate settings beyond what types express; every check yields all its faults."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from fulfilment import apprise_sink
from fulfilment.broker_sink import DRIVERS, EXTRA, is_installed, require_destination
from fulfilment.brokers import url as urls
from fulfilment.contract import unknown_patterns
from fulfilment.email_sink import is_address, is_printable
from fulfilment.email_sink import read_url as read_mail_url
from fulfilment.errors import InsecureSinkUrl, InvalidSink
from fulfilment.network import tls_context
from providers.catalogue import is_built_in
from providers.contract import Capability, Provider
from providers.engine.proof import prove
from providers.engine.provider import DeclaredProvider
from providers.errors import InsecureUrl
from providers.http import require_https
from receipted.errors import SettingFault
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
from receipted.settings.secrets import MIN_KEY_BYTES, REFERENCE_REMEDY, Secret, invisible_end
from statemachine.phases import Alarm, Effect
from storage.errors import DatabaseUnsupported
from storage.postgresql_url import is_postgresql, read_url
from storage.private_files import others_may_read

#: The sink for the API's feed, which takes the effects that no other sink does.
FEED_SINK: Final = "api-feed"

#: Fields of brokers alone.
_BROKER_FIELDS: Final = ("destination", "authorities")

#: Fields of mail servers alone.
_EMAIL_FIELDS: Final = ("username", "password", "sender", "recipients")

#: A wider window of a delivery bounds nothing: providers repeat failed deliveries within minutes or hours.
MAX_WINDOW_HOURS: Final = 24

#: A network with a shorter prefix has strangers in it, unless it is part of a private range.
_MIN_PREFIX_BITS: Final = {4: 16, 6: 32}

#: Ranges without public addresses. Source: IANA, special-purpose address registries.
_PRIVATE_NETWORKS: Final = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
)

#: Ten years: every column and calendar can hold an instant so far ahead.
_MAX_SPAN_S: Final = 315_360_000

#: The URL of a SQLite database in a file; in memory each connection would have a database of its own.
_SQLITE_FILE: Final = re.compile(r"[^:]+:///(?!:memory:)[^?]")
_NAME_PATTERN: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_RANDOM_KEY_REMEDY: Final = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def validate(settings: Settings, providers: Mapping[str, type[Provider]]) -> Iterator[SettingFault]:
    """Yield everything wrong with settings of the right shape."""
    yield from _invisible_ends("", settings.model_dump(mode="json"))
    yield from _service(settings)
    yield from _metrics(settings)
    yield from _oidc(settings)
    yield from tracing_faults(settings.tracing)
    yield from _long_durations(settings, "")
    yield from _waits(settings)
    yield from _sinks(settings)
    yield from effect_filter_faults(settings.sinks, providers)
    if not settings.accounts:
        yield SettingFault("accounts", "is missing", "name at least one account at a provider, as [accounts.<name>]")
    for name, account in settings.accounts.items():
        yield from _account(f"accounts.{name}", name, account, providers, development=settings.service.development)
    yield from _shared_webhook_keys(settings.accounts)
    if not settings.service.development:
        for setting, secret in settings.secrets():
            if secret.is_plain:
                yield SettingFault(
                    setting, "is written in the settings, which is for development only", REFERENCE_REMEDY
                )


def warnings(settings: Settings) -> Iterator[SettingFault]:
    """Yield unwise settings with a better choice, without any secret's value."""
    live = sorted(name for name, account in settings.accounts.items() if account.environment == "live")
    if settings.service.development and live:
        yield SettingFault(
            "service.development",
            f"is on, and live accounts are configured ({', '.join(live)}): plain HTTP and plain: secrets are permitted",
            'turn it off, or give the accounts environment = "test"',
        )
    if live and not settings.service.audit_keys:
        problem = f"is missing, and live accounts are configured ({', '.join(live)}): who can write rows can forge them"
        yield SettingFault("service.audit_keys", problem, "add [[service.audit_keys]] with an id and a secret")
    yield from _networks(settings)
    for name, account in settings.accounts.items():
        for setting in ("window_past_seconds", "window_future_seconds"):
            if getattr(account, setting) > MAX_WINDOW_HOURS * 3600:
                problem = f"is more than {MAX_WINDOW_HOURS} hours: an old delivery that was kept is still accepted"
                yield SettingFault(f"accounts.{name}.{setting}", problem, "give what clocks may differ by, such as 300")
    yield from _reused_secrets(settings)
    yield from _readable_database(settings)


def exposed_secrets(settings: Settings) -> Iterator[SettingFault]:
    """Yield secrets in files that others on this machine may read."""
    for setting, secret in settings.secrets():
        if secret.is_exposed:
            file = secret.reference.removeprefix("file:")
            yield SettingFault(setting, f"is in {file}, which others on this machine may read", f"chmod 600 {file}")


def all_effects(providers: Mapping[str, type[Provider]]) -> tuple[str, ...]:
    """Return the names of all effects, of every provider and of accounts."""
    lifecycles = [lifecycle for provider in providers.values() for lifecycle in provider.lifecycles.values()]
    names = {lifecycle.effect_name(effect) for lifecycle in lifecycles for effect in Effect}
    return tuple(sorted({*names, *(effect.value for effect in Effect), *(alarm.effect for alarm in Alarm)}))


def url_faults(setting: str, url: str, *, development: bool) -> Iterator[SettingFault]:
    """Yield faults of a URL that must be HTTPS, or HTTP on loopback in development."""
    remedy = "give an https:// URL with a host, without credentials, query or fragment"
    if development:
        remedy += " (or http:// on loopback, since service.development is true)"
    try:
        require_https(url, allow_loopback=development)
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError where it is no number
    except (InsecureUrl, ValueError):
        yield SettingFault(setting, "is not an HTTPS URL", remedy)
        return
    if parts.query or parts.fragment or parts.username:
        yield SettingFault(setting, "carries more than a place", remedy)


def _service(settings: Settings) -> Iterator[SettingFault]:
    service = settings.service
    yield from _database(service.database)
    if not service.public_url:
        remedy = 'give the https:// URL at which providers reach this service, such as "https://payments.example.com"'
        yield SettingFault("service.public_url", "is missing", remedy)
    else:
        yield from url_faults("service.public_url", service.public_url, development=service.development)
    if not service.token_keys:
        remedy = f"add [[service.token_keys]] with an id and a secret; {_RANDOM_KEY_REMEDY}"
        yield SettingFault("service.token_keys", "is missing: callback and return URLs could not be signed", remedy)
    yield from _keys("service.token_keys", service.token_keys)
    yield from _keys("service.audit_keys", service.audit_keys)
    for at, retired in enumerate(service.audit_retired_key_ids):
        account, slash, key_id = retired.partition("/")
        if not (account and slash and key_id):
            remedy = 'give the account and the id of the key, such as "shop/2024-01"'
            yield SettingFault(f"service.audit_retired_key_ids.{at}", "names no key of an account", remedy)


def _database(url: str) -> Iterator[SettingFault]:
    remedy = 'give a URL such as "sqlite:///var/receipted.db" or "postgresql://host/receipted"'
    if is_postgresql(url):
        try:
            read_url(url)
        except DatabaseUnsupported as fault:
            yield SettingFault("service.database", f"is wrong: {fault.message}", remedy)
    elif url.partition(":")[0].partition("+")[0] != "sqlite":
        yield SettingFault("service.database", "is no database that is supported", remedy)
    elif not _SQLITE_FILE.match(url):
        problem = "names no file: sqlite:// is followed by a third slash and a path, or by four and an absolute one"
        yield SettingFault("service.database", problem, remedy)


def _oidc(settings: Settings) -> Iterator[SettingFault]:
    oidc = settings.oidc
    if oidc.issuer is None:
        if oidc.client_id or oidc.client_secret is not None:
            yield SettingFault("oidc.issuer", "is missing", "give the provider's https:// issuer URL")
        return
    yield from url_faults("oidc.issuer", oidc.issuer, development=settings.service.development)
    if not oidc.client_id:
        yield SettingFault("oidc.client_id", "is missing", "give the id that the provider gave this client")
    if oidc.client_secret is None:
        yield SettingFault("oidc.client_secret", "is missing", REFERENCE_REMEDY)
    elif oidc.client_secret.problem:
        yield SettingFault("oidc.client_secret", oidc.client_secret.problem, oidc.client_secret.remedy)
    if not (oidc.viewers or oidc.operators or oidc.admins):
        words = (
            f"name at least one value of the claim {oidc.role_claim!r} in oidc.viewers, oidc.operators or oidc.admins"
        )
        yield SettingFault("oidc.viewers", "is missing, with operators and admins: nobody would get in", words)


def _metrics(settings: Settings) -> Iterator[SettingFault]:
    token = settings.metrics.token
    if token is None:
        return
    if token.problem:
        yield SettingFault("metrics.token", token.problem, token.remedy)
    elif token.size_bytes() < MIN_KEY_BYTES:
        problem = f"({token.reference}) has {token.size_bytes()} bytes, which can be guessed"
        yield SettingFault(
            "metrics.token", problem, f"use a token of at least {MIN_KEY_BYTES} bytes; {_RANDOM_KEY_REMEDY}"
        )


def _waits(settings: Settings) -> Iterator[SettingFault]:
    poller, worker = settings.poller, settings.worker
    if poller.longest_seconds < poller.soonest_seconds:
        remedy = f"give at least poller.soonest_seconds, which is {poller.soonest_seconds:g}"
        yield SettingFault("poller.longest_seconds", "is shorter than the shortest wait", remedy)
    if poller.retry_longest_seconds < poller.retry_first_seconds:
        remedy = f"give at least poller.retry_first_seconds, which is {poller.retry_first_seconds:g}"
        yield SettingFault("poller.retry_longest_seconds", "is shorter than the first wait", remedy)
    if worker.retry_longest_seconds < worker.retry_first_seconds:
        remedy = f"give at least worker.retry_first_seconds, which is {worker.retry_first_seconds:g}"
        yield SettingFault("worker.retry_longest_seconds", "is shorter than the first wait", remedy)


def _sinks(settings: Settings) -> Iterator[SettingFault]:
    if not settings.sinks:
        remedy = (
            'add [[sinks]] with name = "shop", kind = "http", url = "https://shop.example.com/receipted" and '
            'secrets = ["env:SHOP_SINK_KEY"], or kind = "python" with a handler'
        )
        yield SettingFault("sinks", "is missing: no system would learn of a payment", remedy)
    seen: set[str] = set()
    for at, sink in enumerate(settings.sinks):
        yield from name_faults(f"sinks.{at}.name", sink.name)
        if sink.name and sink.name in seen:
            yield SettingFault(
                f"sinks.{at}.name", f"is {sink.name!r} like another sink's", "give each sink its own name"
            )
        seen.add(sink.name)
        if sink.kind in DRIVERS:
            yield from broker_sink_faults(f"sinks.{at}", sink, settings.fulfilment.allowed_networks)
        elif sink.kind == "http":
            yield from http_sink_faults(f"sinks.{at}", sink, development=settings.service.development)
        elif sink.kind == "email":
            yield from email_sink_faults(f"sinks.{at}", sink)
        elif sink.kind == "apprise":
            yield from apprise_sink_faults(f"sinks.{at}", sink, development=settings.service.development)
        else:
            yield from python_sink_faults(f"sinks.{at}", sink)


def http_sink_faults(setting: str, sink: SinkSettings, *, development: bool) -> Iterator[SettingFault]:
    """Yield faults of an HTTP sink."""
    yield from _meaningless_fields(setting, sink, (*_BROKER_FIELDS, *_EMAIL_FIELDS))
    if sink.url is None:
        yield SettingFault(f"{setting}.url", "is missing", "give the https:// URL that effects are sent to")
    elif sink.url.problem:
        yield SettingFault(f"{setting}.url", sink.url.problem, sink.url.remedy)
    else:  # a query may select what it means to the shop
        yield from url_faults(f"{setting}.url", sink.url_text().partition("?")[0], development=development)
    if sink.handler is not None:
        yield SettingFault(f"{setting}.handler", "has no meaning for an http sink", 'remove it, or set kind = "python"')
    if not sink.secrets:
        remedy = 'give a list with at least one "env:NAME" or "file:path" of a whsec_ key'
        yield SettingFault(
            f"{setting}.secrets", "is missing: the shop could not tell our messages from forged ones", remedy
        )
    yield from _signing_keys(setting, sink)


def email_sink_faults(setting: str, sink: SinkSettings) -> Iterator[SettingFault]:
    """Yield faults of an email sink.

    The password is optional: a relay may know its clients by the network.
    """
    yield from _meaningless_fields(setting, sink, ("destination", "handler"))
    if sink.secrets:
        yield SettingFault(
            f"{setting}.secrets", "has no meaning for an email sink", "remove it; username and password log in"
        )
    yield from _mail_server(f"{setting}.url", sink)
    if sink.authorities is not None:
        yield from _authorities(f"{setting}.authorities", sink.authorities)
    known: dict[str, str] = {}
    for name, secret in (("username", sink.username), ("password", sink.password)):
        if secret is not None and secret.problem:
            yield SettingFault(f"{setting}.{name}", secret.problem, secret.remedy)
        known[name] = secret.reveal() if secret is not None and not secret.problem else ""
        if (secret is None) != (sink.username is None and sink.password is None):
            yield SettingFault(
                f"{setting}.{name}", "is missing: username and password are given together", REFERENCE_REMEDY
            )
        elif not is_printable(known[name]):
            yield SettingFault(
                f"{setting}.{name}", "has characters that are not printable ASCII", "give one without them"
            )
    if not sink.sender:
        yield SettingFault(f"{setting}.sender", "is missing", "give the address that the messages are from")
    if not sink.recipients:
        yield SettingFault(f"{setting}.recipients", "is missing", "give at least one address")
    addresses = [("sender", sink.sender), *((f"recipients.{at}", each) for at, each in enumerate(sink.recipients))]
    for setting_name, address in addresses:
        if address and not is_address(address):
            remedy = "give one such as on-call@example.com, without a name or a comment"
            yield SettingFault(f"{setting}.{setting_name}", "is no e-mail address that every server takes", remedy)
    if len({each.lower() for each in sink.recipients}) < len(sink.recipients):
        yield SettingFault(f"{setting}.recipients", "names an address twice", "remove one of them")


def apprise_sink_faults(setting: str, sink: SinkSettings, *, development: bool) -> Iterator[SettingFault]:
    """Yield faults of a sink of Apprise, whose URL is a secret as a whole."""
    yield from _meaningless_fields(setting, sink, ("handler", "secrets", *_BROKER_FIELDS, *_EMAIL_FIELDS))
    if not apprise_sink.is_installed():
        yield SettingFault(f"{setting}.kind", "is 'apprise', whose library is missing", apprise_sink.EXTRA)
    elif sink.url is None:
        yield SettingFault(f"{setting}.url", "is missing", REFERENCE_REMEDY)
    elif sink.url.problem:
        yield SettingFault(f"{setting}.url", sink.url.problem, sink.url.remedy)
    elif sink.is_url_written:
        problem = "is a secret as a whole, which is never written in the settings"
        yield SettingFault(f"{setting}.url", problem, REFERENCE_REMEDY)
    else:
        try:
            apprise_sink.require_service(sink.url_text(), allow_loopback=development)
        except InvalidSink as fault:
            problem = "could be read on the way" if isinstance(fault, InsecureSinkUrl) else "is not usable"
            yield SettingFault(f"{setting}.url", f"({sink.url.reference}) {problem}", fault.message)


def broker_sink_faults(setting: str, sink: SinkSettings, allowed: Sequence[Network]) -> Iterator[SettingFault]:
    """Yield faults of a sink at a broker.

    The secrets are optional: the broker knows who publishes.
    """
    if not is_installed(sink.kind):
        yield SettingFault(f"{setting}.kind", f"is {sink.kind!r}, whose library is missing", EXTRA)
    if sink.handler is not None:
        yield SettingFault(f"{setting}.handler", f"has no meaning for a {sink.kind} sink", "remove it")
    yield from _meaningless_fields(setting, sink, _EMAIL_FIELDS)
    yield from _broker_url(f"{setting}.url", sink, allowed)
    try:
        require_destination(sink.kind, sink.destination or "")
    except InvalidSink as fault:
        problem = "is missing" if not sink.destination else "is no name that such a broker knows"
        yield SettingFault(f"{setting}.destination", problem, fault.message)
    if sink.authorities is not None:
        yield from _authorities(f"{setting}.authorities", sink.authorities)
    yield from _signing_keys(setting, sink)


def python_sink_faults(setting: str, sink: SinkSettings) -> Iterator[SettingFault]:
    """Yield faults of a sink that calls a function."""
    yield from _meaningless_fields(setting, sink, (*_BROKER_FIELDS, *_EMAIL_FIELDS))
    if not sink.handler:
        yield SettingFault(f"{setting}.handler", "is missing", 'give an entry point\'s name, or "module:function"')
    if sink.url is not None:
        yield SettingFault(f"{setting}.url", "has no meaning for a python sink", 'remove it, or set kind = "http"')
    if sink.secrets:
        yield SettingFault(f"{setting}.secrets", "has no meaning for a python sink", 'remove it, or set kind = "http"')


def effect_filter_faults(
    sinks: Sequence[SinkSettings], providers: Mapping[str, type[Provider]]
) -> Iterator[SettingFault]:
    """Yield faults of the sinks' effect filters; a paid payment must reach a sink."""
    known = all_effects(providers)
    for at, sink in enumerate(sinks):
        if sink.name == FEED_SINK:
            yield SettingFault(f"sinks.{at}.name", "is what the API's feed is called", "give the sink another name")
        if sink.effects is None:
            continue
        if not sink.effects:
            yield SettingFault(
                f"sinks.{at}.effects", "is empty: the sink would receive nothing", "name effects, or remove it"
            )
        for wrong in unknown_patterns(sink.effects, known):
            yield SettingFault(f"sinks.{at}.effects", f"has {wrong!r}, which is no effect", did_you_mean(wrong, known))
    if sinks and not any(sink.takes()(Effect.PAID) for sink in sinks):
        remedy = f"add a sink for the shop, or {Effect.PAID.value!r} to the effects of one"
        yield SettingFault("sinks", f"take no {Effect.PAID.value}: no system would learn of a payment", remedy)


def _account(
    setting: str, name: str, account: AccountSettings, providers: Mapping[str, type[Provider]], *, development: bool
) -> Iterator[SettingFault]:
    yield from name_faults(setting, name)
    if account.base_url is not None:
        yield from url_faults(f"{setting}.base_url", account.base_url, development=development)
    provider = providers.get(account.provider)
    if provider is not None and account.base_url is None and not provider.default_base_url:
        yield SettingFault(f"{setting}.base_url", f"is missing: {account.provider} has no usual one", "set its URL")
    is_unsigned = provider is not None and issubclass(provider, DeclaredProvider) and provider.authentication is None
    if not account.webhook_keys and not is_unsigned:
        remedy = f"add [[{setting}.webhook_keys]] with an id and a secret"
        yield SettingFault(f"{setting}.webhook_keys", "is missing: every delivery would be refused", remedy)
    yield from _keys(f"{setting}.webhook_keys", account.webhook_keys)
    for at, key in enumerate(account.webhook_keys):
        yield from _validity(f"{setting}.webhook_keys.{at}", key)
    for secret_name, secret in account.secrets.items():
        if secret.problem:
            yield SettingFault(f"{setting}.secrets.{secret_name}", secret.problem, secret.remedy)
        elif not secret.reveal().isprintable():
            problem = f"({secret.reference}) holds a line break or another character that no header can carry"
            yield SettingFault(
                f"{setting}.secrets.{secret_name}", problem, "give the value in one line, as it was issued"
            )
    if provider is None:
        problem = "is missing" if not account.provider else f"is {account.provider!r}, which is no provider known here"
        remedy = did_you_mean(account.provider, providers)
        yield SettingFault(f"{setting}.provider", problem, remedy)
        return
    yield from _provider_secrets(f"{setting}.secrets", account, provider)
    if account.options.get("allow_loopback_http") and not development:
        problem = "permits plain HTTP, which is for development only"
        yield SettingFault(
            f"{setting}.options.allow_loopback_http", problem, "remove it, or set service.development to true"
        )
    yield from _account_options(setting, account, provider)


def _account_options(setting: str, account: AccountSettings, provider: type[Provider]) -> Iterator[SettingFault]:
    """Check the provider's own options, and what can be checked with them only."""
    try:
        options = provider.options_type.model_validate(account.options)
    except ValidationError as fault:
        yield from shape_faults(fault, provider.options_type, f"{setting}.options")
        return
    for option in provider.required_options:
        if getattr(options, option) is None:
            remedy = provider.options_type.model_fields[option].description or "give it"
            yield SettingFault(f"{setting}.options.{option}", f"is missing, and {account.provider} needs it", remedy)
    yield from _key_forms(setting, account, provider(options))
    if account.believes == "answers" and not provider(options).can(Capability.ASK):
        problem = f"is answers, and {account.provider} has no call that asks"
        yield SettingFault(f"{setting}.believes", problem, "set it to push")
    if account.environment == "live" and not account.accept_unproved and not is_built_in(provider):
        yield from _unproved_page(setting, account, provider)


def _key_forms(setting: str, account: AccountSettings, provider: Provider) -> Iterator[SettingFault]:
    """Find keys that the provider's page cannot read: they would verify nothing."""
    if not isinstance(provider, DeclaredProvider):
        return
    for at, key in enumerate(account.webhook_keys):
        form = None if key.secret.problem else provider.key_form(key.key().secret)
        if form is not None:
            problem = f"is no key of {account.provider}, which has the form {form}"
            remedy = "give it as the provider shows it; a private key is the provider's alone"
            yield SettingFault(f"{setting}.webhook_keys.{at}.secret", problem, remedy)


def _unproved_page(setting: str, account: AccountSettings, provider: type[Provider]) -> Iterator[SettingFault]:
    """Refuse live money by a page that nothing from outside speaks for."""
    made = provider(provider.options_type.model_validate(account.options))
    if not isinstance(made, DeclaredProvider):
        return
    proof = prove(made)
    if not proof.is_proved:
        first = (*proof.faults, *proof.money_unproved)[0]
        problem = f"is live, and the page of {provider.name} is not proved: {first}"
        remedy = f"see `receipted providers check`, or set {setting}.accept_unproved to true"
        yield SettingFault(f"{setting}.provider", problem, remedy)


def _mail_server(setting: str, sink: SinkSettings) -> Iterator[SettingFault]:
    if sink.url is None:
        yield SettingFault(setting, "is missing", "give smtps://host:465, or smtp://host:587 (STARTTLS)")
    elif sink.url.problem:
        yield SettingFault(setting, sink.url.problem, sink.url.remedy)
    else:
        try:
            read_mail_url(sink.url_text())
        except InsecureSinkUrl as fault:
            yield SettingFault(setting, "is no mail server's URL", fault.message)


def _broker_url(setting: str, sink: SinkSettings, allowed: Sequence[Network]) -> Iterator[SettingFault]:
    schemes = " or ".join(f"{scheme}://" for scheme in urls.SCHEMES[sink.kind])
    if sink.url is None:
        yield SettingFault(setting, "is missing", f"give a {schemes} URL")
        return
    if sink.url.problem:
        yield SettingFault(setting, sink.url.problem, sink.url.remedy)
        return
    if sink.is_url_written and urls.secrets_in(sink.url_text()):
        remedy = 'give the whole URL as "env:NAME" (an environment variable) or "file:path" (a file)'
        yield SettingFault(setting, "holds a password, which is never written in the settings", remedy)
        return
    try:
        urls.require_protected(urls.read(sink.kind, sink.url_text()), allowed)
    except InvalidSink as fault:
        problem = "could be read on the way" if isinstance(fault, InsecureSinkUrl) else "is not usable"
        yield SettingFault(setting, f"({sink.url.reference}) {problem}", fault.message)


def _authorities(setting: str, given: Secret) -> Iterator[SettingFault]:
    if given.problem:
        yield SettingFault(setting, given.problem, given.remedy)
        return
    try:
        tls_context(given.reveal())
    except InvalidSink:
        yield SettingFault(setting, f"({given.reference}) holds no certificates", "give a file of certificates in PEM")


def _signing_keys(setting: str, sink: SinkSettings) -> Iterator[SettingFault]:
    seen: set[str] = set()
    for at, secret in enumerate(sink.secrets):
        yield from _sink_secret(f"{setting}.secrets.{at}", secret, seen)


def _meaningless_fields(setting: str, sink: SinkSettings, names: Sequence[str]) -> Iterator[SettingFault]:
    for name in names:
        if getattr(sink, name):
            problem = (
                f"has no meaning for {'an' if sink.kind in ('http', 'email', 'apprise') else 'a'} {sink.kind} sink"
            )
            yield SettingFault(f"{setting}.{name}", problem, "remove it")


def _sink_secret(setting: str, secret: Secret, seen: set[str]) -> Iterator[SettingFault]:
    if secret.problem:
        yield SettingFault(setting, secret.problem, secret.remedy)
        return
    value = secret.reveal()
    try:
        raw = base64.b64decode(value.removeprefix("whsec_").encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    # 24 to 64 bytes: https://github.com/standard-webhooks/standard-webhooks, "Signature scheme"
    if not value.startswith("whsec_") or not 24 <= len(raw) <= 64:
        remedy = 'give "whsec_" followed by the Base64 of 24 to 64 random bytes'
        yield SettingFault(setting, f"({secret.reference}) is not a key of Standard Webhooks", remedy)
    if value in seen:
        yield SettingFault(
            setting, f"({secret.reference}) is the same key as another of this sink", "remove one of them"
        )
    seen.add(value)


def _networks(settings: Settings) -> Iterator[SettingFault]:
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
            if _is_too_wide(network):
                yield SettingFault(
                    setting, f"has {network}, which holds strangers: {harm}", "name the machines' own networks"
                )


def _is_too_wide(network: Network) -> bool:
    if network.prefixlen >= _MIN_PREFIX_BITS[network.version]:
        return False
    return not any(_is_within(network, private) for private in _PRIVATE_NETWORKS)


def _is_within(network: Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(other, IPv4Network):
        return network.subnet_of(other)
    return isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and network.subnet_of(other)


def _reused_secrets(settings: Settings) -> Iterator[SettingFault]:
    """Yield values that serve two purposes: a leak of one is a leak of both."""
    first: dict[str, str] = {}
    for setting, secret in settings.secrets():
        if setting.endswith((".username", ".url")):
            continue
        other = first.setdefault(secret.reveal(), setting)
        if other != setting:
            yield SettingFault(
                setting, f"({secret.reference}) is the same value as {other}", "give each purpose its own"
            )


def _readable_database(settings: Settings) -> Iterator[SettingFault]:
    url = settings.service.database
    file = Path(url.partition(":///")[2].partition("?")[0])
    if not is_postgresql(url) and others_may_read(file):
        yield SettingFault(
            "service.database", f"is {file}, which others on this machine may read", f"chmod 600 {file}*"
        )


def _invisible_ends(setting: str, value: object) -> Iterator[SettingFault]:
    """Yield texts, at any depth, that begin or end with an invisible character."""
    if isinstance(value, str):
        found = invisible_end(value)
        if found:
            yield SettingFault(setting, found, "remove it: it would be part of the value")
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _invisible_ends(f"{setting}.{name}" if setting else str(name), item)


def _long_durations(section: BaseModel, prefix: str) -> Iterator[SettingFault]:
    """Yield durations that are longer than a clock can be moved by."""
    for name in type(section).model_fields:
        value, setting = getattr(section, name), f"{prefix}{name}"
        parts = list(
            value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple) else ()
        )
        for key, part in parts:
            if isinstance(part, BaseModel):
                yield from _long_durations(part, f"{setting}.{key}.")
        if isinstance(value, BaseModel):
            yield from _long_durations(value, f"{setting}.")
        numbers = [value, *(part for _, part in parts)] if name.endswith("_seconds") else []
        if any(isinstance(number, int | float) and not number <= _MAX_SPAN_S for number in numbers):
            yield SettingFault(setting, "is longer than ten years", f"give at most {_MAX_SPAN_S:,} seconds")


def name_faults(setting: str, name: str) -> Iterator[SettingFault]:
    """Yield faults of the name of an account or a sink."""
    if not name:
        yield SettingFault(setting, "is missing", "give it a name of lowercase letters, digits, - and _")
    elif not _NAME_PATTERN.fullmatch(name):
        yield SettingFault(setting, "is not a usable name", "use lowercase letters, digits, - and _; 64 at most")


def _keys(setting: str, keys: Iterable[TokenKey]) -> Iterator[SettingFault]:
    """Yield keys that share an id or a secret, or whose secret is short."""
    ids: set[str] = set()
    values: dict[str, int] = {}
    for at, key in enumerate(keys):
        if not key.id:
            yield SettingFault(f"{setting}.{at}.id", "is missing", "name the key, for example by when it was made")
        elif key.id in ids:
            yield SettingFault(f"{setting}.{at}.id", f"is {key.id!r} like another key's", "give each key its own id")
        ids.add(key.id)
        setting_name = f"{setting}.{at}.secret"
        if key.secret.problem:
            yield SettingFault(setting_name, key.secret.problem, key.secret.remedy)
            continue
        if key.secret.size_bytes() < MIN_KEY_BYTES:
            problem = f"({key.secret.reference}) has {key.secret.size_bytes()} bytes, which can be guessed"
            yield SettingFault(
                setting_name, problem, f"use a key of at least {MIN_KEY_BYTES} bytes; {_RANDOM_KEY_REMEDY}"
            )
        first = values.setdefault(key.secret.reveal(), at)
        if first != at:
            problem = f"({key.secret.reference}) is the same key as {setting}.{first}.secret"
            yield SettingFault(setting_name, problem, "remove one of them, or give each its own key")


def _validity(setting: str, key: WebhookKey) -> Iterator[SettingFault]:
    if key.not_before and key.not_after and key.not_before >= key.not_after:
        yield SettingFault(
            f"{setting}.not_after", "is not after not_before, so that the key never verifies", "give a later one"
        )


def _provider_secrets(setting: str, account: AccountSettings, provider: type[Provider]) -> Iterator[SettingFault]:
    for wanted in provider.secret_names:
        if wanted not in account.secrets:
            yield SettingFault(
                f"{setting}.{wanted}", f"is missing: {provider.name} is called with it", REFERENCE_REMEDY
            )
    for given in account.secrets:
        if given not in provider.secret_names:
            yield SettingFault(
                f"{setting}.{given}",
                f"is no secret that {provider.name} uses",
                did_you_mean(given, provider.secret_names),
            )


def _shared_webhook_keys(accounts: Mapping[str, AccountSettings]) -> Iterator[SettingFault]:
    """Yield webhook keys that two accounts of one provider share.

    Each of the accounts would accept the other's deliveries.
    """
    owners: dict[tuple[str, str], str] = {}
    for name, account in accounts.items():
        for at, key in enumerate(account.webhook_keys):
            if key.secret.problem:
                continue
            owner = owners.setdefault((account.provider, key.secret.reveal()), name)
            if owner != name:
                problem = f"({key.secret.reference}) is the same key as one of accounts.{owner}"
                remedy = "give each account its own key: otherwise each would accept the other's deliveries"
                yield SettingFault(f"accounts.{name}.webhook_keys.{at}.secret", problem, remedy)
