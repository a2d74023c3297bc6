"""Calls to Alternative Payments: OAuth, and a create call sent only once."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Final
from urllib.parse import quote, urlencode

import msgspec

from providers.alternative_payments.errors import WebhookNeedsSecret, name_error, name_token_error
from providers.alternative_payments.lifecycle import PAYMENT_REQUEST
from providers.alternative_payments.options import AlternativePaymentsOptions
from providers.alternative_payments.parse import page_extent
from providers.calling import Caller, ClientCredentials
from providers.contract import Account, Answer, Client, CreateRequest, HttpAnswer, Page, Transport
from providers.errors import ProviderError, UnsupportedByProvider
from providers.http import require_https
from providers.listing import Lister, after, text_of
from statemachine.errors import InvalidAmount
from statemachine.money import from_minor

_JSON: Final = {"content-type": "application/json"}

#: The provider's own page size; a larger one is not documented.
_LIST_LIMIT: Final = 100


class AlternativePaymentsClient(Client):
    """Calls to one account at Alternative Payments.

    Source: docs.alternativepayments.io/getting-started/quick-start.
    """

    #: The provider documents no idempotency key, and no way to look a request up by its reference.
    is_create_idempotent: ClassVar[bool] = False

    def __init__(
        self,
        account: Account,
        transport: Transport,
        clock: Callable[[], datetime],
        options: AlternativePaymentsOptions,
    ) -> None:
        self._options = options
        token = ClientCredentials(
            account.base_url + "/oauth/token",
            account.secrets["client_id"],
            account.secrets["client_secret"],
            transport,
            clock,
            name_token_error,
        )
        self._caller = Caller(account.base_url, transport, token.header, name_error, forget_token=token.forget)
        self._lister = Lister(_LIST_LIMIT)

    async def create(self, request: CreateRequest) -> Answer:
        """Create a payment request once; an error in doubt is ambiguous, never retried.

        The amount goes out as text, in the unit that the account's options name; raises InvalidAmount where that unit
        cannot state it whole. Source: docs.alternativepayments.io/api-reference/payment-request.
        """
        content = msgspec.json.encode(self._body(request))
        try:
            answer = await self._caller.call("POST", self._options.payment_request_path, content=content, headers=_JSON)
        except ProviderError as error:
            if error.is_ambiguous:
                error.may_retry = False
            raise
        return Answer(answer.status, answer.body, answer.sent_at, PAYMENT_REQUEST)

    async def fetch(self, kind: str, ref: str) -> Answer:
        """Fetch the payment request.

        Source: docs.alternativepayments.io/api-reference/payment-request.
        """
        answer = await self._caller.call("GET", f"{self._options.payment_request_path}/{quote(ref, safe='')}")
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    async def cancel(self, kind: str, ref: str) -> Answer:
        """Cancel where the account's options name a path."""
        if self._options.cancel_path is None:
            raise UnsupportedByProvider
        path = self._options.cancel_path.replace("{id}", quote(ref, safe=""))
        answer = await self._caller.call("POST", path, headers=_JSON)
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    async def list_page(self, since: datetime, until: datetime, position: str | None) -> Page:
        """Fetch the provider's logged webhook events from `since` to before `until`.

        They hint at payments as webhooks do; payment requests themselves cannot be listed. `position` is the cursor
        at the end of the page before. Source: docs.alternativepayments.io/webhooks.
        """
        options = self._options
        path = options.events_path
        if path is None:
            raise UnsupportedByProvider
        query = {options.events_created_after: after(since), options.events_created_before: text_of(until)}
        if position is not None:
            query["after"] = position

        async def ask(size: int) -> HttpAnswer:
            return await self._caller.call("GET", f"{path}?{urlencode({**query, 'limit': size})}")

        return await self._lister.page((since, until), position, PAYMENT_REQUEST, ask, page_extent)

    async def register_webhook(self, url: str, **details: str) -> Answer:
        """Subscribe our HTTPS URL to one `topic` with a `secret_key`.

        A repeat makes a second subscription.

        The topic is `payment_succeeded` unless named. Raises WebhookNeedsSecret without a secret_key, since deliveries
        would then carry no authentication. Source: docs.alternativepayments.io/getting-started/webhooks.
        """
        require_https(url, allow_loopback=self._options.allow_loopback_http)
        if not details.get("secret_key"):
            raise WebhookNeedsSecret(param="secret_key")
        content = msgspec.json.encode({"topic": "payment_succeeded", **details, "endpoint_url": url})
        answer = await self._caller.call("POST", "/webhooks", content=content, headers=_JSON)
        return Answer(answer.status, answer.body, answer.sent_at, "webhook")

    def _body(self, request: CreateRequest) -> dict[str, object]:
        body: dict[str, object] = {
            **request.extra,
            "amount": self._amount(request),
            "currency": request.currency,
            "reference_id": request.reference,
        }
        if request.return_url is not None:
            body["redirect_url"] = request.return_url
        redirect_url = body.get("redirect_url")
        if isinstance(redirect_url, str):
            require_https(redirect_url, allow_loopback=self._options.allow_loopback_http)
        return body

    def _amount(self, request: CreateRequest) -> str:
        if self._options.amount_unit == "minor":
            return str(request.amount_minor)
        whole = Decimal(from_minor(request.amount_minor, request.currency))
        if whole != int(whole):
            # "amount must be a positive integer", says the provider; a remainder is never rounded away.
            raise InvalidAmount("Alternative Payments takes whole amounts only in this unit", param="amount")
        return str(int(whole))
