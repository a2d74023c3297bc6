"""Signed trial delivery through the public URL, followed to its decision."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from providers import trial
from providers.signing import Key
from receipted.doctor.probes import Finding, ProbeAnswer, ProbeClient, fault, ok, refused_finding, skipped, warning
from receipted.wiring import Service, WiredAccount
from sandbox import signing
from storage import inbox, quarantine
from storage.errors import NotFound
from storage.tables import InboxMessage, RejectedDelivery
from storage.types import InboxStatus

_SIGNERS: Final[Mapping[str, Callable[[str, Any], signing.Signer]]] = {
    "alternative_payments": lambda secret, _options: signing.alternative_payments(secret),
    "stable_genius": lambda secret, _options: signing.stable_genius(secret),
    "payfield": lambda secret, options: signing.payfield(secret, options.digest_encoding),
    "banked": lambda secret, _options: signing.banked(secret),
}

#: Header with the name of the trial, to find it again however it was changed on its way.
_TRIAL_HEADER: Final = "x-receipted-trial"

#: Seconds to the answer from which a provider may count a delivery as failed, and from which it is slow.
_MAX_ANSWER_S: Final = 5.0
_SLOW_ANSWER_S: Final = 1.0

#: The difference of clocks from which a warning is due; beyond the account's window deliveries are refused.
_MAX_CLOCK_SKEW: Final = timedelta(seconds=5)

#: Seconds until a trial must be decided, between two checks, and from which it is slow.
_DECISION_TIMEOUT_S: Final = 15.0
_POLL_INTERVAL_S: Final = 0.02
_SLOW_DECISION_S: Final = 2.0


def active_key(account: WiredAccount, now: datetime) -> Key | None:
    """Return the first of the account's webhook keys that is valid now."""
    return next(account.settings.keyring().active(now), None)


def sign(account: WiredAccount, key: Key, body: bytes, at: datetime) -> dict[str, str]:
    """Return the headers that the account's provider would add to this body."""
    return _SIGNERS[account.provider.name](key.secret.decode(), account.provider.options)(body, at)


def can_sign(account: WiredAccount) -> bool:
    """Return whether this module can sign like the account's provider."""
    return account.provider.name in _SIGNERS


@dataclass(frozen=True, slots=True)
class SentTrial:
    """One trial delivery as it was sent."""

    account: str
    name: str
    body: bytes
    headers: Mapping[str, str]  #: lower-case names
    at: datetime


class TrialDelivery:
    """Trial deliveries of one account, checked against the database."""

    def __init__(self, service: Service, account: WiredAccount, ask: ProbeClient, url: str, name: str) -> None:
        self._service = service
        self._account = account
        self._ask = ask
        self._url = url
        self._name = name

    def findings(self) -> Iterator[Finding]:
        """Yield findings of a small trial and, if that arrives, of the largest one."""
        name = self._account.name
        if active_key(self._account, self._service.clock()) is None or not can_sign(self._account):
            yield skipped("delivery", "no webhook key is valid now, so nothing can be signed", name)
            return
        sent, answer = self._send(self._name, 0)
        message = self._arrived(answer)
        if message is None:
            yield self._diagnose_lost(sent, answer)
            return
        yield from self._check_speed(answer)
        yield from self._check_unchanged(sent, message.body, message.headers)
        yield self._check_clock(sent, answer, message.received_at)
        yield self._check_decision(message)
        yield self._check_largest()

    def _send(self, name: str, size: int) -> tuple[SentTrial, ProbeAnswer]:
        now = self._service.clock()
        key = active_key(self._account, now)
        body = trial.body(name, size=size)
        headers = {"content-type": "application/json", _TRIAL_HEADER: name}
        if key is not None:
            headers |= {header.lower(): value for header, value in sign(self._account, key, body, now).items()}
        sent = SentTrial(self._account.name, name, body, headers, now)
        return sent, self._ask("POST", self._url, body, headers)

    def _arrived(self, answer: ProbeAnswer) -> InboxMessage | None:
        """Return the message that the answer names; None if it is not in this database."""
        named = answer.content.get("id") if answer.status == 200 and isinstance(answer.content, dict) else None
        if not isinstance(named, str):
            return None
        try:
            with self._service.database.read() as unit:
                return inbox.get(unit, named)
        except NotFound:
            return None

    def _diagnose_lost(self, sent: SentTrial, answer: ProbeAnswer) -> Finding:
        if answer.status == 200:
            return fault(
                "delivery",
                "it was answered 200 and is not in this database: another installation, or something else, took it",
                "see where the name leads, and that service.database is the installation's own",
                sent.account,
            )
        kept = self._quarantined(sent) if answer.status == 401 else None
        if kept is None:
            return refused_finding("delivery", f"a signed delivery to {self._url}", answer, sent.account)
        changes = list(_changes(sent, kept.body, kept.headers))
        if changes:
            remedy = "a proxy on the way changes deliveries: let it pass this path through as it is"
            return fault("delivery", f"refused ({kept.reason}), since {'; '.join(changes)}", remedy, sent.account)
        if kept.reason.startswith("timestamp"):
            off = (kept.received_at - sent.at).total_seconds()
            remedy = "set the clock of whichever machine is wrong (NTP)"
            says = f"refused ({kept.reason}): the server's clock is {off:+.0f} seconds from the clock here"
            return fault("delivery", says, remedy, sent.account)
        return fault(
            "delivery",
            f"refused ({kept.reason}), though it arrived as it was sent: the service has another key than these",
            "restart the service with these settings, or run doctor with its own",
            sent.account,
        )

    def _quarantined(self, sent: SentTrial) -> RejectedDelivery | None:
        with self._service.database.read() as unit:
            since = sent.at - timedelta(hours=1)
            kept = quarantine.find(unit, sent.account, since=since, limit=10_000)
        by_name = (each for each in reversed(kept) if (_TRIAL_HEADER, sent.name) in _pairs(each.headers))
        by_body = (each for each in reversed(kept) if sent.name.encode() in each.body)
        return next(by_name, None) or next(by_body, None)

    def _check_speed(self, answer: ProbeAnswer) -> Iterator[Finding]:
        says = f"answered 200 after {answer.seconds * 1000:.0f} ms, when it was committed"
        remedy = "see the way there, and how long the database's disk takes to commit"
        if answer.seconds > _MAX_ANSWER_S:
            yield fault(
                "answer", f"{says}: providers count a slow answer as a failed delivery", remedy, self._account.name
            )
        elif answer.seconds > _SLOW_ANSWER_S:
            yield warning("answer", says, remedy, self._account.name)
        else:
            yield ok("answer", says, self._account.name)

    def _check_unchanged(self, sent: SentTrial, body: bytes, headers: list[list[str]]) -> Iterator[Finding]:
        changes = list(_changes(sent, body, headers))
        if changes:
            remedy = "let the proxy pass this path through as it is: what it changes may be signed tomorrow"
            yield warning("unchanged", f"it was accepted, but {'; '.join(changes)}", remedy, sent.account)
        else:
            yield ok("unchanged", f"all {len(body)} bytes and every header arrived as they were sent", sent.account)

    def _check_clock(self, sent: SentTrial, answer: ProbeAnswer, received_at: datetime) -> Finding:
        early, late = sent.at, sent.at + timedelta(seconds=answer.seconds)
        off = timedelta(0)
        if not early <= received_at <= late:
            off = received_at - (late if received_at > late else early)
        window = self._account.settings.window()
        says = f"the server's clock is {off.total_seconds():+.1f} seconds from the clock here"
        if abs(off) <= _MAX_CLOCK_SKEW:
            return ok("clock", says, sent.account)
        remedy = "set the clock of whichever machine is wrong (NTP)"
        limit = min(window.past, window.future)
        return warning(
            "clock", f"{says}; deliveries are refused beyond {limit.total_seconds():.0f}", remedy, sent.account
        )

    def _check_decision(self, message: InboxMessage) -> Finding:
        deadline = time.monotonic() + _DECISION_TIMEOUT_S
        while message.status == InboxStatus.PENDING and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL_S)  # another process decides; only the database shows it
            with self._service.database.read() as unit:
                message = inbox.get(unit, message.id)
        if message.decided_at is None:
            says = f"not decided within {_DECISION_TIMEOUT_S:.0f} seconds"
            remedy = (
                "see that receipted serve or receipted worker runs, and how far behind it is (receipted inbox list)"
            )
            return fault("decision", says, remedy, message.account)
        seconds = (message.decided_at - message.received_at).total_seconds()
        says = f"decided {seconds * 1000:.0f} ms after it was received"
        if seconds > _SLOW_DECISION_S:
            return warning("decision", says, "see whether the worker is behind: receipted inbox list", message.account)
        return ok("decision", says, message.account)

    def _check_largest(self) -> Finding:
        limit = self._service.settings.service.body_limit_bytes
        sent, answer = self._send(f"{self._name}-large", limit)
        if self._arrived(answer) is not None:
            return ok("size", f"a delivery of {len(sent.body)} bytes comes through, as large as is taken", sent.account)
        if answer.status == 413:
            return fault(
                "size",
                f"a delivery of {len(sent.body)} bytes is answered 413: something before Receipted takes less than it",
                "raise the proxy's limit of a body to service.body_limit_bytes (client_max_body_size in nginx)",
                sent.account,
            )
        return refused_finding("size", f"a delivery of {len(sent.body)} bytes", answer, sent.account)


def _changes(sent: SentTrial, body: bytes, headers: list[list[str]]) -> Iterator[str]:
    """Yield descriptions of what was changed on the way."""
    if body != sent.body:
        yield f"the body was changed on its way ({len(sent.body)} bytes were sent, {len(body)} arrived)"
    arrived = dict(_pairs(headers))
    for name, value in sent.headers.items():
        if name not in arrived:
            yield f"the header {name} was taken off"
        elif arrived[name] != value and not arrived[name].startswith("sha256="):
            yield f"the header {name} was changed"


def _pairs(headers: list[list[str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers]
