"""Calls to Stable Genius: a bearer key, idempotent creation, exact decimals."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import ClassVar, Final
from urllib.parse import quote, urlencode

import msgspec

from providers.calling import Caller, Headers
from providers.contract import Account, Answer, Client, CreateRequest, HttpAnswer, Page, Transport
from providers.errors import UnsupportedByProvider
from providers.http import require_https
from providers.listing import Lister, after, text_of
from providers.stable_genius.errors import name_error
from providers.stable_genius.lifecycle import PAYMENT_INTENT
from providers.stable_genius.options import StableGeniusOptions
from providers.stable_genius.parse import page_extent
from statemachine.money import from_minor

_INTENTS: Final = "/payment-intents"
_JSON: Final = {"content-type": "application/json"}

#: The largest page that the provider has.
_LIST_LIMIT: Final = 100

#: Writes Decimal("4.50") as the number 4.50: the provider wants numbers, and a float would not be exact.
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class StableGeniusClient(Client):
    """Calls to one account. Source: docs.stablegenius.co/api-reference/overview."""

    create_is_remembered_for: ClassVar[timedelta | None] = timedelta(hours=23)  #: documented: 24 hours

    def __init__(self, account: Account, transport: Transport, options: StableGeniusOptions) -> None:
        self._options = options
        self._headers = {"authorization": f"Bearer {account.secrets['api_key']}"}
        if options.api_version is not None:
            self._headers["x-api-version"] = options.api_version
        self._caller = Caller(
            account.base_url, transport, self._authorize, partial(name_error, reset_unit=options.reset_unit)
        )
        self._lister = Lister(_LIST_LIMIT)

    async def create(self, request: CreateRequest) -> Answer:
        """Create a payment intent, or return the one that this idempotency key made.

        Safe to repeat for 24 hours, and repeated here after retryable errors. The amount is sent in US dollars.
        Source: docs.stablegenius.co/api-reference/create-payment-intent.
        """
        content = _encoder.encode(self._intent(request))
        answer = await self._caller.call("POST", _INTENTS, content=content, headers=_JSON, attempts=4)
        return Answer(answer.status, answer.body, answer.sent_at, PAYMENT_INTENT)

    async def fetch(self, kind: str, ref: str) -> Answer:
        """Fetch the payment intent.

        Source: docs.stablegenius.co/api-reference/get-payment-intent.
        """
        answer = await self._caller.call("GET", _one(ref))
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    async def cancel(self, kind: str, ref: str) -> Answer:
        """Cancel before payment; later the provider answers 409 `intent_not_cancellable`.

        Not repeated: a repeat of one that succeeded would be answered with that 409.
        Source: docs.stablegenius.co/api-reference/cancel-payment-intent.
        """
        answer = await self._caller.call("POST", _one(ref) + "/cancel", headers=_JSON)
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    async def list_page(self, since: datetime, until: datetime, position: str | None) -> Page:
        """List intents created from `since` to before `until`, newest first.

        `position` is the id of the last intent before the page. Without a `merchant_id` the provider lists only for a
        key that is scoped to one merchant. Source: docs.stablegenius.co/api-reference/list-payment-intents.
        """
        query = {"created_after": after(since), "created_before": text_of(until)}
        if self._options.merchant_id is not None:
            query["merchant_id"] = self._options.merchant_id
        if position is not None:
            query["starting_after"] = position

        async def ask(size: int) -> HttpAnswer:
            return await self._caller.call("GET", f"{_INTENTS}?{urlencode({**query, 'limit': size})}")

        return await self._lister.page((since, until), position, PAYMENT_INTENT, ask, page_extent)

    async def register_webhook(self, url: str, **details: str) -> Answer:
        """Register our HTTPS URL where the account's options name a path.

        Stable Genius documents registration errors but no call: docs.stablegenius.co/quickstart has it done by hand.
        """
        require_https(url, allow_loopback=self._options.allow_loopback_http)
        path = self._options.webhook_path
        if path is None:
            raise UnsupportedByProvider
        content = _encoder.encode({**details, "url": url})
        answer = await self._caller.call("POST", path, content=content, headers=_JSON)
        return Answer(answer.status, answer.body, answer.sent_at, "webhook")

    def _intent(self, request: CreateRequest) -> Mapping[str, object]:
        options, extra = self._options, dict(request.extra)
        metadata = extra.pop("metadata", None)
        body: dict[str, object] = {}
        if options.merchant_id is not None:
            body["merchant_id"] = options.merchant_id
        if options.ttl is not None:
            body["ttl"] = options.ttl
        return {
            **body,
            **extra,
            "amount": Decimal(from_minor(request.amount_minor, request.currency)),
            "currency": request.currency.lower(),
            "idempotency_key": request.idempotency_key,
            "metadata": {
                **(metadata if isinstance(metadata, Mapping) else {}),
                options.reference_key: request.reference,
            },
        }

    async def _authorize(self, _method: str, _path: str, _body: bytes) -> Headers:
        return self._headers


def _one(ref: str) -> str:
    return f"{_INTENTS}/{quote(ref, safe='')}"
