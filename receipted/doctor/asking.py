"""HTTP as a provider speaks it to the public URL, and what an answer that is not ours says of whoever gave it."""

import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from receipted.doctor.findings import Finding, fault, ok

#: Seconds for a whole answer: a provider that waits longer is not known.
_PATIENCE: Final = 30.0

#: Who asks, as logs on the way see it.
USER_AGENT: Final = "receipted-doctor"

_HOW_HTTPS: Final = (
    "the proxy that ends TLS must send X-Forwarded-Proto: https, and its address must be in service.trusted_proxies"
)
_OUR_CODES: Final = {
    "https_required": ("Receipted does not see that the request came over HTTPS", _HOW_HTTPS),
    "unknown_account": (
        "another installation answers: it has no such account",
        "see where the name leads, and that this installation was restarted with these settings",
    ),
    "storage_unavailable": ("Receipted cannot reach its database", "see its log, and that the database runs"),
    "schema_outdated": ("its database has an old schema", "run receipted migrate"),
    "too_many_unverified": ("too many deliveries with wrong signatures came before", "wait a minute and try again"),
    "body_too_large": ("it is larger than service.body_limit_bytes", "raise service.body_limit_bytes"),
}


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, or in words why there is none."""

    seconds: float
    status: int = 0
    headers: Mapping[str, str] | None = None
    content: Any = None  #: of JSON; else None
    why: str = ""  #: there is no answer


class Asker:
    """Sends requests as a provider would: no redirect is followed."""

    def __init__(self, trusted: ssl.SSLContext) -> None:
        self._http = httpx2.Client(
            verify=trusted, timeout=_PATIENCE, follow_redirects=False, headers={"user-agent": USER_AGENT}
        )

    def close(self) -> None:
        """Its connections are closed."""
        self._http.close()

    def __call__(self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Heard:
        """What the URL answers; never raises for what the network does."""
        began = time.monotonic()
        try:
            answer = self._http.request(method, url, content=body, headers=dict(headers or {}))
        except httpx2.TimeoutException:
            return Heard(time.monotonic() - began, why=f"no answer within {_PATIENCE:.0f} seconds")
        except httpx2.TransportError as error:
            return Heard(time.monotonic() - began, why=str(error) or type(error).__name__)
        seconds = time.monotonic() - began
        try:
            content = answer.json()
        except ValueError:
            content = None
        return Heard(seconds, answer.status_code, dict(answer.headers), content)


def probed(ask: Asker, url: str, account: str) -> Iterator[Finding]:
    """Whether the URL answers 200 to GET and HEAD, as providers try it when it is registered."""
    for method in ("GET", "HEAD"):
        heard = ask(method, url)
        is_ours = method == "HEAD" or heard.content == {"account": account, "ready": True}
        if heard.status != 200 or not is_ours:
            yield refused("probe", f"{method} {url}", heard, account)
            return
    yield ok("probe", "GET and HEAD are answered 200, as a provider tries it at registration", account)


def refused(check: str, what: str, heard: Heard, account: str) -> Finding:
    """Why that was not answered as it should be, from what the answer looks like."""
    says, remedy = _why(heard)
    return fault(check, f"{what}: {says}", remedy, account, code="webhook_unreachable")


def _why(heard: Heard) -> tuple[str, str]:
    if heard.why:
        return heard.why, "see that the service runs, and what the proxies before it log"
    named = _code(heard)
    if named in _OUR_CODES:
        says, remedy = _OUR_CODES[named]
        return f"answered {heard.status}: {says}", remedy
    if 300 <= heard.status < 400:
        where = (heard.headers or {}).get("location", "nowhere")
        remedy = "register the URL that it leads to, or take the redirect off this path"
        return (
            f"answered {heard.status}, a redirect to {where[:200]}: providers do not follow it, or lose the body",
            remedy,
        )
    if named:
        return f"answered {heard.status} ({named[:60]})", "see docs/errors.md for the code"
    return (
        f"answered {heard.status} by something that is not Receipted",
        "a proxy, a firewall or another service stands there: let this path through to Receipted",
    )


def _code(heard: Heard) -> str:
    """The code of an error in our shape; empty for any other answer."""
    error = heard.content.get("error") if isinstance(heard.content, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""
