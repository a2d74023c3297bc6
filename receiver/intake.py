"""Intake of providers' deliveries: verify, record durably, answer.

A plain ASGI callable without Request objects.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from re import compile as pattern
from urllib.parse import parse_qs, parse_qsl

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from providers.contract import Delivery, Provider
from providers.errors import DeliveryRejected
from providers.signing import KeyRing, Window
from receiver.errors import ClientGone, HeadersTooLarge, NotHttps, TooManyUnverified, UnknownAccount, UnknownToken
from receiver.group_commit import GroupWriter
from receiver.http import (
    Network,
    Peer,
    UnverifiedLimit,
    is_secure,
    peer_of,
    read_body,
    send_error,
    send_json,
    send_text,
)
from receiver.returns import About, Tokens
from statemachine.errors import ServiceError
from statemachine.histograms import Counts, counts
from statemachine.phases import Source
from storage import quarantine
from storage.database import Database
from storage.ids import new_id
from storage.inbox import Recorded
from storage.intake import Arrival, Outcome, arrived, message_of
from storage.tables import InboxMessage, RejectedDelivery

#: Sends a status and a body.
SendAnswer = Callable[[int, bytes], None]

#: Notes the account and the id of a request, and what became of it.
NoteOutcome = Callable[[str, str, Outcome], None]


class PendingAnswer:
    """Answer of a delivery, sent when its commit is known.

    A waiter of receiver.group_commit.GroupWriter. The id of the request is that of its message.
    """

    __slots__ = ("_answer", "_arrival", "_note")

    def __init__(self, answer: SendAnswer, arrival: Arrival, note: NoteOutcome) -> None:
        self._answer: SendAnswer | None = answer
        self._arrival = arrival
        self._note = note

    def settle(self, outcome: Outcome) -> None:
        """See receiver.group_commit.Waiter."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        request_id = self._arrival.id
        if isinstance(outcome, Recorded):
            answer(200, b'{"received":true,"id":"%b"}' % outcome.id.encode())
        else:
            answer(outcome.status, msgspec.json.encode(outcome.as_json(request_id)))
        self._note(self._arrival.account, request_id, outcome)


log = structlog.get_logger()

#: What a refusal is counted as, by its status; any other is "refused".
_REFUSALS = {401: "unverified", 429: "limited", 500: "failed", 503: "unavailable"}


class IntakeNotes:
    """Counts and log lines of the intake since the process began."""

    def __init__(self, sample: Callable[[str], int]) -> None:
        self._sample = sample
        self.answered: Counts = counts()  #: by account, "" where none is named, and what became of it
        self.unverified: Counts = counts()  #: by account and the reason

    def answer(self, account: str, request_id: str, outcome: Outcome) -> None:
        """Count and log a request that was recorded or refused."""
        if isinstance(outcome, ServiceError):
            self.answered[account, _REFUSALS.get(outcome.status, "refused")] += 1
            log.info("delivery.refused", request_id=request_id, code=outcome.code, status=outcome.status)
            return
        is_duplicate, is_variant = outcome.is_duplicate, outcome.is_variant
        self.answered[account, "duplicate" if is_duplicate else "variant" if is_variant else "recorded"] += 1
        event = "delivery.duplicate" if is_duplicate else "delivery.recorded"
        count = self._sample(event)
        if count:
            log.info(
                event,
                account=account,
                request_id=request_id,
                message_id=outcome.id,
                is_variant=is_variant,
                sampled=count,
            )

    def abandon(self, account: str, request_id: str) -> None:
        """Count and log a request whose client has gone."""
        self.answered[account, "abandoned"] += 1
        log.info("delivery.abandoned", request_id=request_id)

    def reject(self, account: str, request_id: str, reason: str, client: str, *, is_kept: bool) -> None:
        """Count and log an unauthentic delivery.

        `reason` is one of DeliveryRejected.REASONS.
        """
        self.unverified[account, reason] += 1
        log.warning(
            "delivery.rejected",
            account=account,
            request_id=request_id,
            reason=reason,
            client=client,
            is_kept=is_kept,
        )


class QuarantineWriter:
    """The bounded quarantine of this database."""

    def __init__(self, database: Database, *, per_account: int) -> None:
        self._database = database
        self._per_account = per_account

    async def keep(
        self,
        *,
        account: str,
        received_at: datetime,
        reason: str,
        client: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        kind: str | None,
        about: str | None,
    ) -> None:
        """Keep the delivery, and drop the account's oldest beyond its bound.

        Raises StorageUnavailable.
        """
        rejected = RejectedDelivery(
            id="",
            account=account,
            received_at=received_at,
            reason=reason,
            client=client[:64],
            headers=[list(pair) for pair in headers],
            body=body,
            kind=kind,
            about=about,
        )
        await asyncio.to_thread(self._keep, rejected)

    def _keep(self, rejected: RejectedDelivery) -> None:
        with self._database.write() as unit:
            quarantine.keep(unit, rejected, at_most=self._per_account)


_WEBHOOK, _CALLBACK = Source.WEBHOOK.value, Source.CALLBACK.value

#: Headers whose value is kept as it came, besides those that the account's provider signs with. Of every other only a
#: digest is kept: which of them hold a credential is for whoever sends them to say, and cannot be listed.
_PLAIN_HEADERS = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "cdn-loop",
        "cf-ray",
        "connection",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "date",
        "expect",
        "forwarded",
        "from",
        "host",
        "keep-alive",
        "max-forwards",
        "origin",
        "pragma",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-amzn-trace-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
        "x-receipted-trial",
        "x-request-id",
    }
)
#: Something of every header is kept, so there must not be many.
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class ReceivingAccount:
    """One account as the intake knows it."""

    name: str
    provider: Provider
    keys: KeyRing
    window: Window
    plain_headers: frozenset[str] = field(init=False)  #: those of its deliveries that are kept as they came

    def __post_init__(self) -> None:
        scheme = self.provider.authentication
        signing = () if scheme is None else (None if scheme.shows_secret else scheme.header, scheme.time_header)
        object.__setattr__(self, "plain_headers", _PLAIN_HEADERS.union(filter(None, signing)))


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """Bounds of the intake."""

    body_limit: int = 256 * 1024
    body_seconds: float = 10.0
    trusted_proxies: Sequence[Network] = ()
    is_development: bool = False


class Intake:
    """Serves `/webhooks/{account}` and `/callbacks/{token}`."""

    def __init__(
        self,
        accounts: Mapping[str, ReceivingAccount],
        tokens: Tokens,
        writer: GroupWriter,
        quarantine: QuarantineWriter,
        limit: UnverifiedLimit,
        settings: IntakeSettings,
        clock: Callable[[], datetime],
        sample: Callable[[str], int] = lambda _event: 1,
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._writer = writer
        self._quarantine = quarantine
        self._limit = limit
        self._settings = settings
        self._clock = clock
        self._endpoints = dict(_endpoints(accounts))
        self.notes = IntakeNotes(sample)

    def take(
        self,
        target: bytes,
        raw: Sequence[tuple[bytes, bytes]],
        body: bytes,
        client: str,
        scheme: str,
        answer: SendAnswer,
    ) -> bool:
        """Handle a plain POST without Starlette; return False to fall back to `__call__`.

        A delivery that is taken is answered as soon as its commit is known.

        Otherwise nothing was done, and `__call__` answers it: that is the only place that refuses. Half of what a
        delivery costs there is spent on requests in general, before and after all that is done here. A forged one is
        verified there once more: that is little beside a request in general and the commit of its quarantine, and a
        verdict that is remembered from one place to the other could be another delivery's.
        """
        endpoint = self._endpoints.get(target) or self._callback_endpoint(target)
        if endpoint is None or _are_too_large(raw) or len(body) > self._settings.body_limit:
            return False
        account, about, kind = endpoint
        settings = self._settings
        if not is_secure(client, scheme, raw, settings.trusted_proxies, is_development=settings.is_development):
            return False
        try:
            arrival = verified_arrival(account, about, kind, _delivery(raw, body), self._clock())
            self._writer.submit(arrival, PendingAnswer(answer, arrival, self.notes.answer))
        except Exception:  # noqa: BLE001 - a refusal or a bug: either is met again by __call__, and told there
            return False
        return True

    def _callback_endpoint(self, target: bytes) -> "_Endpoint | None":
        if not target.startswith(_CALLBACKS) or not _TOKEN.fullmatch(target, len(_CALLBACKS)):
            return None
        try:
            about = self._tokens.read("callback", target[len(_CALLBACKS) :].decode("ascii"))
        except UnknownToken:
            return None
        account = self._accounts.get(about.account)
        return None if account is None else (account, about, about.kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a 2xx to a POST means that the delivery is durable."""
        request_id = new_id()
        is_head = scope["method"] == "HEAD"
        name = ""
        try:
            peer = peer_of(scope, self._settings.trusted_proxies, is_development=self._settings.is_development)
            if not peer.is_secure:
                raise NotHttps
            account, about, kind = self._find_endpoint(scope)
            name = account.name
            if scope["method"] in ("GET", "HEAD"):  # providers probe a URL when it is registered
                words = account.provider.challenge(_query(scope), account.keys, self._clock())
                if words is not None:
                    await send_text(send, 200, words, is_head=is_head)
                    return
                await send_json(send, 200, {"account": account.name, "ready": True}, is_head=is_head)
                return
            delivery = await self._read(scope, receive)
            recorded = await self._record(account, about, kind, delivery, peer, request_id)
        except ClientGone:
            self.notes.abandon(name, request_id)
        except ServiceError as error:
            self.notes.answer(name, request_id, error)
            await send_error(send, error, request_id, is_head=is_head)
        else:
            self.notes.answer(account.name, request_id, recorded)
            await send_json(send, 200, {"received": True, "id": recorded.id})

    def _find_endpoint(self, scope: Scope) -> tuple[ReceivingAccount, About | None, str | None]:
        """Find the account and payment of the URL.

        A query `kind=` tells kinds apart that share a body format.
        """
        params: Mapping[str, str] = scope["path_params"]
        about = self._tokens.read("callback", params["token"]) if "token" in params else None
        account = self._accounts.get(about.account if about else params["account"])
        if account is None:
            raise UnknownAccount
        if about is not None:
            return account, about, about.kind
        return account, None, _kind_in(scope.get("query_string", b""), account.provider)

    async def _read(self, scope: Scope, receive: Receive) -> Delivery:
        settings, raw = self._settings, scope["headers"]
        if _are_too_large(raw):
            raise HeadersTooLarge
        body = await read_body(scope, receive, at_most=settings.body_limit, seconds=settings.body_seconds)
        return _delivery(raw, body)

    async def _record(
        self,
        account: ReceivingAccount,
        about: About | None,
        kind: str | None,
        delivery: Delivery,
        peer: Peer,
        request_id: str,
    ) -> Recorded:
        now = self._clock()
        try:
            arrival = verified_arrival(account, about, kind, delivery, now, request_id)
        except DeliveryRejected as rejected:
            await self._refuse(account, about, kind, delivery, peer, rejected, now, request_id)
            raise
        return await self._writer.record(arrival)

    async def _refuse(
        self,
        account: ReceivingAccount,
        about: About | None,
        kind: str | None,
        delivery: Delivery,
        peer: Peer,
        rejected: DeliveryRejected,
        now: datetime,
        request_id: str,
    ) -> None:
        is_within = self._limit.allows(peer.address, account.name, now.timestamp())
        self.notes.reject(account.name, request_id, rejected.reason, peer.address, is_kept=is_within)
        if not is_within:
            raise TooManyUnverified from None
        await self._quarantine.keep(
            account=account.name,
            received_at=now,
            reason=rejected.reason,
            client=peer.address,
            headers=kept_headers(delivery, account.plain_headers),
            body=delivery.body,
            kind=kind,
            about=about.payment_id if about else None,
        )


def _query(scope: Scope) -> dict[str, str]:
    """Return the query of a URL; of a name that comes twice the last counts."""
    try:
        return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:  # more of them than any question has
        return {}


def _kind_in(query: bytes, provider: Provider) -> str | None:
    kind = parse_qs(query.decode("latin-1")).get("kind", [""])[0] if query else ""
    return kind if kind in provider.lifecycles else None


_Endpoint = tuple[ReceivingAccount, About | None, str | None]

_CALLBACKS = b"/callbacks/"
_MAX_QUERY_FIELDS = 20
_TOKEN = pattern(rb"[A-Za-z0-9_.\-]+")


def _endpoints(accounts: Mapping[str, ReceivingAccount]) -> Iterator[tuple[bytes, _Endpoint]]:
    """Yield every URL that an account is registered under, as requests have it."""
    for name, account in accounts.items():
        path = f"/webhooks/{name}"
        yield path.encode(), (account, None, None)
        for kind in account.provider.lifecycles:
            yield f"{path}?kind={kind}".encode(), (account, None, kind)


def _are_too_large(raw: Sequence[tuple[bytes, bytes]]) -> bool:
    return len(raw) > _MAX_HEADERS or sum([len(name) + len(value) for name, value in raw]) > _MAX_HEADER_BYTES


def _delivery(raw: Sequence[tuple[bytes, bytes]], body: bytes) -> Delivery:
    return Delivery(body, tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]))


def verified_arrival(
    account: ReceivingAccount,
    about: About | None,
    kind: str | None,
    delivery: Delivery,
    now: datetime,
    message_id: str | None = None,
) -> Arrival:
    """Verify a delivery and make its arrival; raises DeliveryRejected alone."""
    try:
        verified = account.provider.verify(delivery, account.keys, account.window, now)
    except DeliveryRejected as rejected:
        if rejected.reason == "signature_wrong" and _is_encoded(delivery):
            raise DeliveryRejected("content_encoded") from None
        raise
    return arrived(
        message_id=message_id,
        account=account.name,
        source=_WEBHOOK if about is None else _CALLBACK,
        delivery_key=account.provider.identity(delivery, now, None if about is None else about.payment_id),
        body=delivery.body,
        headers=kept_headers(delivery, account.plain_headers),
        key_id=verified.key_id,
        provider_time=verified.provider_time,
        received_at=now,
        kind=kind,
        about=None if about is None else about.payment_id,
    )


def _is_encoded(delivery: Delivery) -> bool:
    return any(name == "content-encoding" and value.lower() != "identity" for name, value in delivery.headers)


def verified_message(
    account: ReceivingAccount, about: About | None, kind: str | None, delivery: Delivery, now: datetime
) -> InboxMessage:
    """Verify a delivery and make its record, as `verified_arrival` does."""
    return message_of(verified_arrival(account, about, kind, delivery, now))


def kept_headers(delivery: Delivery, plain: frozenset[str]) -> Sequence[tuple[str, str]]:
    """Return the headers as received; values not among `plain` become digests."""
    if plain.issuperset([name for name, _ in delivery.headers]):
        return delivery.headers
    return tuple(
        (name, value if name in plain else f"sha256={sha256(value.encode('latin-1')).hexdigest()}")
        for name, value in delivery.headers
    )
