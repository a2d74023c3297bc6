"""Looks at a public URL from the outside in: each step only where the one before lets a provider come so far."""

import ssl
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from receipted.doctor import probes
from receipted.doctor.probes import Finding, ProbeClient, Verdict, probe_registration, warning
from receipted.doctor.trial_delivery import TrialDelivery
from receipted.wiring import Service
from storage.ids import new_id

_HTTPS_PORT: Final = 443


def examine(service: Service, url: str, accounts: Sequence[str], trusted: ssl.SSLContext) -> Iterator[Finding]:
    """What is found, as it is found. A trial is sent for each account, and stays in its inbox or its quarantine."""
    url = url.rstrip("/")
    fits = True
    for finding in _connected(service, url, trusted):
        fits = fits and finding.verdict is not Verdict.FAULT
        yield finding
    if not fits:
        return
    ask = ProbeClient(trusted)
    try:
        for name in accounts:
            yield from _account(service, url, name, ask)
        yield from _unencrypted(url, accounts, ask)
    finally:
        ask.close()


def _connected(service: Service, url: str, trusted: ssl.SSLContext) -> Iterator[Finding]:
    fits = True
    for finding in probes.form(url):
        fits = finding.verdict is not Verdict.FAULT
        yield finding
    if not fits:
        return
    public = service.settings.service.public_url
    if url != public:
        yield warning(
            "settings",
            f"service.public_url is {public}: callbacks and return URLs of payments lead there, not to {url}",
            "set service.public_url to the URL that providers use",
        )
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _HTTPS_PORT
    for finding in probes.resolved(host, port):
        fits = finding.verdict is not Verdict.FAULT
        yield finding
    if fits:
        yield from probes.certificate(host, port, trusted, service.clock())


def _account(service: Service, url: str, name: str, ask: ProbeClient) -> Iterator[Finding]:
    path = f"{url}/webhooks/{name}"
    for finding in probe_registration(ask, path, name):
        yield finding
        if finding.verdict is Verdict.FAULT:
            return
    yield from TrialDelivery(service, service.accounts[name], ask, path, new_id()).findings()


def _unencrypted(url: str, accounts: Sequence[str], ask: ProbeClient) -> Iterator[Finding]:
    """Whether somebody who forgets the s is let in."""
    parts = urlsplit(url)
    if parts.port not in (None, _HTTPS_PORT) or not accounts:
        return
    plain = parts._replace(scheme="http", netloc=parts.hostname or "").geturl()
    heard = ask("GET", f"{plain}/webhooks/{accounts[0]}")
    if heard.status == 200:
        yield warning(
            "http",
            "the same path is answered 200 over http://, where anybody on the way can read and change a delivery",
            "let the proxy refuse or redirect http://, and trust X-Forwarded-Proto of that proxy alone",
        )
