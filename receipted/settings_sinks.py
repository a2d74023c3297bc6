"""What types cannot say about sinks and URLs; like all checks, these yield faults and stop at nothing."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from fulfilment import tls
from fulfilment.addresses import Network
from fulfilment.broker_sink import EXTRA, is_installed, require_destination
from fulfilment.brokers import url as urls
from fulfilment.email_sink import is_address, is_printable, read_url
from fulfilment.errors import InsecureSinkUrl, InvalidSink
from providers.errors import InsecureUrl
from providers.http import require_https
from receipted.errors import Fault
from receipted.secrets import HOW, Secret
from receipted.settings_fulfilment import SinkSettings

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
            read_url(sink.place())
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
        tls.context(given.reveal())
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
