"""Probes of a public URL as a provider would reach it: name, certificate, HTTP."""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

#: Seconds for a connection.
_CONNECT_TIMEOUT_S: Final = 10.0

#: A certificate that ends sooner should have been renewed: most are, 30 days before their end.
_RENEWAL_TIME: Final = timedelta(days=14)
_UNREACHABLE: Final = "webhook_unreachable"

#: Remedies for OpenSSL's own messages.
_REMEDIES: Final = (
    ("expired", "renew the certificate, and see why it was not renewed by itself"),
    ("not yet valid", "the certificate begins in the future: see the clock of its issuer, and of this machine"),
    ("self-signed", "providers trust public authorities only: get a certificate from one (or name yours by --ca)"),
    (
        "unable to get local issuer",
        "the server sends its own certificate without the intermediate ones: serve the full chain",
    ),
    ("mismatch", "the certificate is for another name: get one for this name, or register the other"),
)

#: Seconds for a whole answer: no known provider waits longer.
_ANSWER_TIMEOUT_S: Final = 30.0

#: User agent of the probes, for logs on the way.
USER_AGENT: Final = "receipted-doctor"
_HTTPS_REMEDY: Final = (
    "the proxy that ends TLS must send X-Forwarded-Proto: https, and its address must be in service.trusted_proxies"
)
_KNOWN_CODES: Final = {
    "https_required": ("Receipted does not see that the request came over HTTPS", _HTTPS_REMEDY),
    "unknown_account": (
        "another installation answers: it has no such account",
        "see where the name leads, and that this installation was restarted with these settings",
    ),
    "storage_unavailable": ("Receipted cannot reach its database", "see its log, and that the database runs"),
    "schema_outdated": ("its database has an old schema", "run receipted migrate"),
    "too_many_unverified": ("too many deliveries with wrong signatures came before", "wait a minute and try again"),
    "body_too_large": ("it is larger than service.body_limit_bytes", "raise service.body_limit_bytes"),
}


class Verdict(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"  #: deliveries come through, and a person should look at it
    FAULT = "fault"  #: deliveries are lost, late or refused, or the URL cannot be registered
    SKIPPED = "skipped"  #: could not be looked at


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check, of an account if any, with a remedy."""

    check: str
    verdict: Verdict
    says: str
    remedy: str = ""
    account: str | None = None
    code: str | None = None  #: the error that a provider answers a registration of this URL with


def ok(check: str, says: str, account: str | None = None) -> Finding:
    """Build a finding without a problem."""
    return Finding(check, Verdict.OK, says, account=account)


def warning(check: str, says: str, remedy: str, account: str | None = None) -> Finding:
    """Build a finding that a person should look at."""
    return Finding(check, Verdict.WARNING, says, remedy, account)


def fault(check: str, says: str, remedy: str, account: str | None = None, code: str | None = None) -> Finding:
    """Build a finding by which deliveries suffer."""
    return Finding(check, Verdict.FAULT, says, remedy, account, code)


def skipped(check: str, says: str, account: str | None = None) -> Finding:
    """Build a finding of a check that could not run."""
    return Finding(check, Verdict.SKIPPED, says, account=account)


def check_form(url: str) -> Iterator[Finding]:
    """Check that providers would accept the form of the URL."""
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


def check_name(host: str, port: int) -> Iterator[Finding]:
    """Check that the name leads to an address that providers can reach."""
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


def check_certificate(host: str, port: int, trusted: ssl.SSLContext, now: datetime) -> Iterator[Finding]:
    """Check the certificate with these authorities, and its remaining time."""
    try:
        with (
            socket.create_connection((host, port), _CONNECT_TIMEOUT_S) as plain,
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
    if ends_at - now < _RENEWAL_TIME:
        return warning("tls", says, "renew it, and see why it was not renewed by itself")
    return ok("tls", says)


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    words = error.verify_message.lower()
    return next((remedy for word, remedy in _REMEDIES if word in words), "see the chain that the server sends")


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """Answer of the URL, or the reason for none."""

    seconds: float
    status: int = 0
    headers: Mapping[str, str] | None = None
    content: Any = None  #: of JSON; else None
    why: str = ""  #: there is no answer


class ProbeClient:
    """Client that sends requests as a provider would: it follows no redirect."""

    def __init__(self, trusted: ssl.SSLContext) -> None:
        self._http = httpx2.Client(
            verify=trusted, timeout=_ANSWER_TIMEOUT_S, follow_redirects=False, headers={"user-agent": USER_AGENT}
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __call__(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> ProbeAnswer:
        """Send a request and return the answer; network errors are returned, not raised."""
        began = time.monotonic()
        try:
            answer = self._http.request(method, url, content=body, headers=dict(headers or {}))
        except httpx2.TimeoutException:
            return ProbeAnswer(time.monotonic() - began, why=f"no answer within {_ANSWER_TIMEOUT_S:.0f} seconds")
        except httpx2.TransportError as error:
            return ProbeAnswer(time.monotonic() - began, why=str(error) or type(error).__name__)
        seconds = time.monotonic() - began
        try:
            content = answer.json()
        except ValueError:
            content = None
        return ProbeAnswer(seconds, answer.status_code, dict(answer.headers), content)


def check_registration_probe(ask: ProbeClient, url: str, account: str) -> Iterator[Finding]:
    """Check that GET and HEAD are answered 200, as at a provider's registration."""
    for method in ("GET", "HEAD"):
        answer = ask(method, url)
        is_ours = method == "HEAD" or answer.content == {"account": account, "ready": True}
        if answer.status != 200 or not is_ours:
            yield refused_finding("probe", f"{method} {url}", answer, account)
            return
    yield ok("probe", "GET and HEAD are answered 200, as a provider tries it at registration", account)


def refused_finding(check: str, what: str, answer: ProbeAnswer, account: str) -> Finding:
    """Build the finding for a wrong answer, by what the answer looks like."""
    says, remedy = _diagnose(answer)
    return fault(check, f"{what}: {says}", remedy, account, code="webhook_unreachable")


def _diagnose(answer: ProbeAnswer) -> tuple[str, str]:
    if answer.why:
        return answer.why, "see that the service runs, and what the proxies before it log"
    named = _code(answer)
    if named in _KNOWN_CODES:
        says, remedy = _KNOWN_CODES[named]
        return f"answered {answer.status}: {says}", remedy
    if 300 <= answer.status < 400:
        where = (answer.headers or {}).get("location", "nowhere")
        remedy = "register the URL that it leads to, or take the redirect off this path"
        return (
            f"answered {answer.status}, a redirect to {where[:200]}: providers do not follow it, or lose the body",
            remedy,
        )
    if named:
        return f"answered {answer.status} ({named[:60]})", "see docs/errors.md for the code"
    return (
        f"answered {answer.status} by something that is not Receipted",
        "a proxy, a firewall or another service stands there: let this path through to Receipted",
    )


def _code(answer: ProbeAnswer) -> str:
    """Return the code of an error in our shape; empty for any other answer."""
    error = answer.content.get("error") if isinstance(answer.content, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""
