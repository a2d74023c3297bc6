"""The way to the public URL below HTTP: its form, its name, and its certificate."""

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from receipted.doctor.findings import Finding, fault, ok, warning

#: Seconds for a connection.
_PATIENCE: Final = 10.0

#: A certificate that ends sooner was to be renewed by now: most are renewed 30 days before their end.
_SOON: Final = timedelta(days=14)

_UNREACHABLE: Final = "webhook_unreachable"

#: What OpenSSL's own words mean to whoever put the certificate there.
_REMEDIES: Final = (
    ("expired", "renew the certificate, and see why it was not renewed by itself"),
    ("not yet valid", "the certificate begins in the future: see the clock of whoever issued it, and of this machine"),
    ("self-signed", "providers trust public authorities only: get a certificate from one (or name yours by --ca)"),
    (
        "unable to get local issuer",
        "the server sends its own certificate without the intermediate ones: serve the full chain",
    ),
    ("mismatch", "the certificate is for another name: get one for this name, or register the other"),
)


def form(url: str) -> Iterator[Finding]:
    """Whether a provider would take the URL at all."""
    wrong = _wrong_form(url)
    if wrong:
        says = f"{wrong}: providers take https:// URLs of a public name only"
        remedy = "give the URL that is registered with the provider, such as https://pay.example.com"
        yield fault("url", says, remedy, code="invalid_webhook_url")
    else:
        yield ok("url", f"{url} is a URL that providers take")


def _wrong_form(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:  # brackets, ports and labels that are none
        return "it cannot be read"
    if parts.scheme != "https":
        return f"it begins with {parts.scheme or 'nothing'}://" if parts.scheme else "it has no https://"
    if not host:
        return "it names no host"
    if parts.username is not None or parts.password is not None:
        return "it holds a name or a password"
    if parts.query or parts.fragment:
        return "it has a query or a fragment"
    return ""


def resolved(host: str, port: int) -> Iterator[Finding]:
    """Whether the name leads to an address that providers can reach."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        yield fault("name", f"{host} has no address ({error.strerror})", "add its DNS record", code=_UNREACHABLE)
        return
    addresses = sorted({str(entry[4][0]) for entry in found})
    inside = [each for each in addresses if not ipaddress.ip_address(each.partition("%")[0]).is_global]
    if inside:
        yield warning(
            "name",
            f"{host} leads to {', '.join(inside)}, which only your own network reaches",
            "providers need a public address; run doctor from outside your network, or see the public DNS record",
        )
    else:
        yield ok("name", f"{host} leads to {', '.join(addresses)}")


def certificate(host: str, port: int, trusted: ssl.SSLContext, now: datetime) -> Iterator[Finding]:
    """Whether the server proves its name to whoever trusts these authorities, and for how long it still will."""
    try:
        with (
            socket.create_connection((host, port), _PATIENCE) as plain,
            trusted.wrap_socket(plain, server_hostname=host) as secured,
        ):
            shown: Any = secured.getpeercert()
            version = secured.version()
    except ssl.SSLCertVerificationError as error:
        yield fault("tls", f"the certificate is refused: {error.verify_message}", _remedy(error), code=_UNREACHABLE)
    except ssl.SSLError as error:
        why = (error.reason or "no reason given").lower().replace("_", " ")
        remedy = "see that this port speaks TLS 1.2 or newer"
        yield fault("tls", f"TLS fails: {why}", remedy, code=_UNREACHABLE)
    except OSError as error:
        why = "no answer within ten seconds" if isinstance(error, TimeoutError) else (error.strerror or "no connection")
        remedy = "see that the service runs, and that its firewall lets the internet in"
        yield fault("tls", f"{host}:{port} cannot be reached: {why}", remedy, code=_UNREACHABLE)
    else:
        yield _ending(datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC), version or "TLS", now)


def _ending(ends_at: datetime, version: str, now: datetime) -> Finding:
    says = f"{version}, a trusted certificate that ends {ends_at:%Y-%m-%d}, in {(ends_at - now).days} days"
    if ends_at - now < _SOON:
        return warning("tls", says, "renew it, and see why it was not renewed by itself")
    return ok("tls", says)


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    words = error.verify_message.lower()
    return next((remedy for word, remedy in _REMEDIES if word in words), "see the chain that the server sends")
