"""Calls to Banked: Basic or OAuth, with an Idempotency-Key on all but GET."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote, urlencode
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import msgspec

from providers.api_calls import Caller, ClientCredentials, basic_auth
from providers.banked import listing, requests
from providers.banked.errors import PartialSuccess, name_error
from providers.banked.options import BankedOptions
from providers.contract import (
    Account,
    Answer,
    Capability,
    Client,
    CreateRequest,
    HttpAnswer,
    MoneyRequest,
    Page,
    Transport,
)
from providers.errors import ProviderError, UnsupportedByProvider
from providers.http import require_https
from providers.listing import Extent, Lister

#: Where each kind is read. The pages show the first; the others are implied by where they are created, or by the first.
_PATHS: Final = {
    "payment_session": "/v2/payment_sessions",
    "payin": "/v3/payins",
    "refund": "/v2/refunds",
    "payout": "/v2/payouts",
}

#: How often a call with an Idempotency-Key may be sent: the provider keeps its answer for 30 days.
_ATTEMPTS: Final = 4

_KEYS: Final[UUID] = uuid5(NAMESPACE_URL, "https://api.banked.com/idempotency")


class BankedClient(Client):
    """Calls for one account at Banked.

    Sandbox and live share the host and differ by credentials.

    Source: https://docs.banked.com/merchant/api-reference/authentication-merchant and the idempotency page beside it.
    """

    create_is_remembered_for: timedelta | None = timedelta(days=29)  #: documented: 30 days

    def __init__(
        self, options: BankedOptions, account: Account, transport: Transport, clock: Callable[[], datetime]
    ) -> None:
        self._options = options
        self._lister = Lister(listing.LIMIT)
        key, secret = account.secrets["api_key"], account.secrets["api_secret"]
        if options.auth == "oauth":
            tokens = ClientCredentials(
                account.base_url + "/oauth/token",
                key,
                secret,
                transport,
                clock,
                name_error,
                scope=quote(options.scope, safe=""),
            )
            self._caller = Caller(account.base_url, transport, tokens.header, name_error, forget_token=tokens.forget)
        else:
            self._basic = {"authorization": basic_auth(key, secret)}
            self._caller = Caller(account.base_url, transport, self._authorize_basic, name_error)

    async def create(self, request: CreateRequest) -> Answer:
        """Create the resource; a repeat within 30 days returns the same one.

        Raises InvalidBankedCreate before asking where Banked's documented rules are broken. An answer that failed in
        part and names a created payment is returned, not raised: parse() reads it as "exists; ask".
        """
        path = self._path(request.kind)
        if request.kind not in requests.BODIES:
            raise UnsupportedByProvider
        content = requests.body_of(request, allow_loopback=self._options.allow_loopback_http)
        key = str(uuid5(_KEYS, request.idempotency_key))
        try:
            answer = await self._send("POST", path, content, key)
        except PartialSuccess as partial:
            answer = partial.answer
        return Answer(answer.status, answer.body, answer.sent_at, request.kind)

    async def fetch(self, kind: str, ref: str) -> Answer:
        """Fetch the resource by its id."""
        answer = await self._caller.call("GET", f"{self._path(kind)}/{quote(ref, safe='')}")
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    async def cancel(self, kind: str, ref: str) -> Answer:
        """Delete a v2 session; return its state after that, or the bare answer if gone.

        The provider does not say which state results, so it is asked; where that fails the outcome is ambiguous.
        No other kind has such a call.
        """
        if kind != "payment_session":
            raise UnsupportedByProvider
        # a new key for each call: the provider would replay an old refusal for 30 days
        path = f"{self._path(kind)}/{quote(ref, safe='')}"
        answer = await self._send("DELETE", path, b"", str(uuid4()))
        try:
            return await self.fetch(kind, ref)
        except ProviderError as fault:
            if fault.http_status == 404:
                return Answer(answer.status, b"", answer.sent_at, kind, ref)
            fault.is_ambiguous = True
            raise

    async def refund(self, request: MoneyRequest) -> Answer:
        """Refund a payment session; the answer is the refund, a resource of its own.

        Source: https://docs.banked.com/merchant/payments/refund-session
        """
        if request.kind not in requests.REFUNDABLE:
            raise UnsupportedByProvider
        key = uuid5(_KEYS, request.idempotency_key)
        answer = await self._send("POST", _PATHS["refund"], requests.refund_of(request, key), str(key))
        return Answer(answer.status, answer.body, answer.sent_at, request.kind, request.ref)

    def repeats_within(self, call: Capability) -> timedelta | None:
        """Return how long a repeated refund counts as the same one."""
        return self.create_is_remembered_for

    async def list_page(self, since: datetime, until: datetime, position: str | None) -> Page:
        """List what was created from `since` to before `until`, newest first.

        The path is the account's `list_path`.

        There is no cursor: `position` is the instant before which the page's resources were created. Without the name
        of that filter a list that goes on after one page ends with a fault.
        Source: https://developer.banked.com/reference/get_v2-payment-sessions
        """
        options = self._options
        path = options.list_path
        if path is None:
            raise UnsupportedByProvider
        query = listing.query_of(options, since, until, position)

        async def ask(size: int) -> HttpAnswer:
            return await self._caller.call("GET", f"{path}?{urlencode({**query, 'limit': size})}")

        def read(body: bytes, size: int) -> Extent:
            return listing.extent_of(options, body, size, since)

        return await self._lister.page((since, until), position, options.list_kind, ask, read)

    async def register_webhook(self, url: str, **details: str) -> Answer:
        """Register our HTTPS URL for the account's events; the answer has the id.

        `details` may carry `signature_key`, the key that Banked is to sign with. At most 5 webhooks per event.
        """
        require_https(url, allow_loopback=self._options.allow_loopback_http)
        fields: dict[str, object] = {"target_url": url, "events": requests.events_of(self._options)}
        if details.get("signature_key"):
            fields[self._options.signature_key_field] = details["signature_key"]
        path = f"/{self._options.webhook_version}/webhooks"
        answer = await self._send("POST", path, msgspec.json.encode(fields), str(uuid4()))
        return Answer(answer.status, answer.body, answer.sent_at, "webhook")

    async def _send(self, method: str, path: str, content: bytes, key: str) -> HttpAnswer:
        headers = {"idempotency-key": key}
        if content:
            headers["content-type"] = "application/json"
        return await self._caller.call(method, path, content=content, headers=headers, attempts=_ATTEMPTS)

    async def _authorize_basic(self, _method: str, _path: str, _body: bytes) -> Mapping[str, str]:
        return self._basic

    def _path(self, kind: str) -> str:
        if kind not in _PATHS:
            raise UnsupportedByProvider
        return _PATHS[kind]
