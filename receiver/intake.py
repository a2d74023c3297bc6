"""The way in for providers: verify, record durably, answer. A plain ASGI callable, without Request objects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import parse_qs

import structlog
from starlette.types import Receive, Scope, Send

from providers.contract import Delivery, Provider
from providers.errors import DeliveryRejected
from providers.signing import KeyRing, Window
from receiver.answers import send_error, send_json
from receiver.body import read_body
from receiver.errors import ClientGone, HeadersTooLarge, NotHttps, TooManyUnverified, UnknownAccount
from receiver.limits import UnverifiedLimit
from receiver.peer import Network, Peer, peer_of
from receiver.quarantine import Quarantine
from receiver.tokens import About, Tokens
from receiver.writer import GroupWriter
from statemachine.errors import ServiceError
from statemachine.phases import Source
from storage import inbox
from storage.ids import new_id
from storage.tables import InboxMessage

log = structlog.get_logger()

#: Credentials among the headers; only their digest is kept.
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
#: Every header is kept, since it may be what was signed; so there must not be many.
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class ReceivingAccount:
    """One account as the way in knows it."""

    name: str
    provider: Provider
    keys: KeyRing
    window: Window


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """Bounds of the way in."""

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
        quarantine: Quarantine,
        limit: UnverifiedLimit,
        settings: IntakeSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._writer = writer
        self._quarantine = quarantine
        self._limit = limit
        self._settings = settings
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a 2xx to a POST means that the delivery is committed durably."""
        request_id = new_id()
        is_head = scope["method"] == "HEAD"
        try:
            peer = peer_of(scope, self._settings.trusted_proxies, is_development=self._settings.is_development)
            if not peer.is_secure:
                raise NotHttps
            account, about, kind = self._addressed(scope)
            if scope["method"] in ("GET", "HEAD"):  # providers probe a URL when it is registered
                await send_json(send, 200, {"account": account.name, "ready": True}, is_head=is_head)
                return
            delivery = await self._read(scope, receive)
            message_id = await self._record(account, about, kind, delivery, peer, request_id)
        except ClientGone:
            log.info("delivery.abandoned", request_id=request_id)
        except ServiceError as error:
            log.info("delivery.refused", request_id=request_id, code=error.code, status=error.status)
            await send_error(send, error, request_id, is_head=is_head)
        else:
            await send_json(send, 200, {"received": True, "id": message_id})

    def _addressed(self, scope: Scope) -> tuple[ReceivingAccount, About | None, str | None]:
        """Whose URL this is. A query `kind=` tells kinds apart that share a body format."""
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
        if len(raw) > _MAX_HEADERS or sum(len(name) + len(value) for name, value in raw) > _MAX_HEADER_BYTES:
            raise HeadersTooLarge
        body = await read_body(scope, receive, at_most=settings.body_limit, seconds=settings.body_seconds)
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)
        return Delivery(body, headers)

    async def _record(
        self,
        account: ReceivingAccount,
        about: About | None,
        kind: str | None,
        delivery: Delivery,
        peer: Peer,
        request_id: str,
    ) -> str:
        now = self._clock()
        try:
            message = verified_message(account, about, kind, delivery, now)
        except DeliveryRejected as rejected:
            await self._refuse(account, about, kind, delivery, peer, rejected, now, request_id)
            raise
        recorded = await self._writer.record(message)
        log.info(
            "delivery.duplicate" if recorded.is_duplicate else "delivery.recorded",
            account=account.name,
            request_id=request_id,
            message_id=recorded.id,
            is_variant=recorded.is_variant,
        )
        return recorded.id

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
        log.warning(
            "delivery.rejected",
            account=account.name,
            request_id=request_id,
            reason=rejected.reason,
            client=peer.address,
            is_kept=is_within,
        )
        if not is_within:
            raise TooManyUnverified from None
        await self._quarantine.keep(
            account=account.name,
            received_at=now,
            reason=rejected.reason,
            client=peer.address,
            headers=kept_headers(delivery),
            body=delivery.body,
            kind=kind,
            about=about.payment_id if about else None,
        )


def _kind_in(query: bytes, provider: Provider) -> str | None:
    kind = parse_qs(query.decode("latin-1")).get("kind", [""])[0] if query else ""
    return kind if kind in provider.lifecycles else None


def verified_message(
    account: ReceivingAccount, about: About | None, kind: str | None, delivery: Delivery, now: datetime
) -> InboxMessage:
    """The inbox message of an authentic delivery; raises DeliveryRejected and nothing else."""
    verified = account.provider.verify(delivery, account.keys, account.window, now)
    return inbox.new_message(
        account=account.name,
        source=(Source.CALLBACK if about else Source.WEBHOOK).value,
        delivery_key=account.provider.delivery_key(delivery),
        body=delivery.body,
        headers=kept_headers(delivery),
        key_id=verified.key_id,
        provider_time=verified.provider_time,
        received_at=now,
        kind=kind,
        about=about.payment_id if about else None,
    )


def kept_headers(delivery: Delivery) -> tuple[tuple[str, str], ...]:
    """The headers as received, with a digest in place of each credential."""
    return tuple(
        (name, f"sha256={sha256(value.encode('latin-1')).hexdigest()}" if name in _CREDENTIALS else value)
        for name, value in delivery.headers
    )
