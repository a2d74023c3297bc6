"""Examination of a public URL from outside, step by step.

Each step runs only where the one before lets a provider get so far.
"""

import ssl
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from receipted.doctor import probes
from receipted.doctor.probes import Finding, ProbeClient, Verdict, check_registration_probe, ok, warning
from receipted.doctor.trial_delivery import TrialDelivery
from receipted.wiring import Service
from statemachine.phases import Alarm
from storage.ids import new_id

_HTTPS_PORT: Final = 443


def examine(service: Service, url: str, accounts: Sequence[str], trusted: ssl.SSLContext) -> Iterator[Finding]:
    """Yield findings as they are made; sends a trial delivery for each account.

    A trial stays in the account's inbox or quarantine.
    """
    url = url.rstrip("/")
    is_passable = True
    for finding in _connected(service, url, trusted):
        is_passable = is_passable and finding.verdict is not Verdict.FAULT
        yield finding
    if not is_passable:
        return
    ask = ProbeClient(trusted)
    try:
        for name in accounts:
            yield from _account(service, url, name, ask)
            yield from _asking(service, name)
        yield from _unencrypted(url, accounts, ask)
    finally:
        ask.close()


def _connected(service: Service, url: str, trusted: ssl.SSLContext) -> Iterator[Finding]:
    is_passable = True
    for finding in probes.check_form(url):
        is_passable = finding.verdict is not Verdict.FAULT
        yield finding
    if not is_passable:
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
    for finding in probes.check_name(host, port):
        is_passable = finding.verdict is not Verdict.FAULT
        yield finding
    if is_passable:
        yield from probes.check_certificate(host, port, trusted, service.clock())


def _account(service: Service, url: str, name: str, ask: ProbeClient) -> Iterator[Finding]:
    path = f"{url}/webhooks/{name}"
    for finding in check_registration_probe(ask, path, name):
        yield finding
        if finding.verdict is Verdict.FAULT:
            return
    yield from TrialDelivery(service, service.accounts[name], ask, path, new_id()).findings()


def _asking(service: Service, name: str) -> Iterator[Finding]:
    """Say whose word counts; warn where silence would alarm nobody and none can ask."""
    account = service.accounts[name]
    if account.asked_kinds:
        if account.settings.believes == "answers":
            yield ok("asking", "believes = answers: a delivery is only a reason to ask the provider", name)
        return
    says = "the provider cannot be asked about a payment: what it sends is all there is"
    if any(sink.takes()(Alarm.SILENT.effect) for sink in service.settings.sinks):
        yield ok("asking", f"{says}, and {Alarm.SILENT.effect} is raised when it falls silent", name)
    else:
        yield warning(
            "asking", f"{says}, and no sink takes {Alarm.SILENT.effect}", f"let a sink take {Alarm.SILENT.effect}", name
        )


def _unencrypted(url: str, accounts: Sequence[str], ask: ProbeClient) -> Iterator[Finding]:
    """Warn if plain HTTP is answered too."""
    parts = urlsplit(url)
    if parts.port not in (None, _HTTPS_PORT) or not accounts:
        return
    plain = parts._replace(scheme="http", netloc=parts.hostname or "").geturl()
    answer = ask("GET", f"{plain}/webhooks/{accounts[0]}")
    if answer.status == 200:
        yield warning(
            "http",
            "the same path is answered 200 over http://, where anybody on the way can read and change a delivery",
            "let the proxy refuse or redirect http://, and trust X-Forwarded-Proto of that proxy alone",
        )
