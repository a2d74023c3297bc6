"""Calls to Payfield: every attempt is stamped and signed anew."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from providers.calling import Caller
from providers.contract import Account, Answer, Client, CreateRequest, Transport
from providers.errors import UnsupportedByProvider
from providers.http import require_https
from providers.payfield.errors import InvalidPayfieldCreate, name_error
from providers.payfield.options import PayfieldOptions
from providers.payfield.scheme import signature_text
from providers.signing import hmac_sha256
from statemachine.money import from_minor

_PATHS: Final = {"payin": "/api/v1/payins", "payout": "/api/v1/payouts"}

#: Fields that the older pages leave optional are not asked for in the OLD dialect.
_REQUIRED: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("new", "payin"): ("merchant_user_id", "merchant_user_ip"),
    ("new", "payout"): ("card_number", "merchant_user_id", "merchant_user_ip"),
    ("old", "payout"): ("card_number",),
}

#: Said by the request or by the account, so that `extra` cannot say it otherwise.
_OURS: Final = ("external_id", "amount", "currency", "callback_url", "shop_code")

#: How often a create call may be sent: the merchant's id makes each repeat the same operation.
_CREATE_ATTEMPTS: Final = 4

_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class PayfieldClient(Client):
    """Calls for one shop, with our reference as the idempotency key.

    The provider has no other.

    Source: https://bdt-hrs-external-documentation.pages.dev/docs/
    """

    def __init__(
        self, options: PayfieldOptions, account: Account, transport: Transport, clock: Callable[[], datetime]
    ) -> None:
        self._options = options
        self._key = account.secrets["api_key"]
        self._secret = account.secrets["api_secret"].encode()
        self._clock = clock
        self._caller = Caller(account.base_url, transport, self._authorize, name_error)

    async def create(self, request: CreateRequest) -> Answer:
        """Create the operation; a repeat with the same reference returns the stored one.

        Raises InvalidPayfieldCreate before asking where a field that Payfield requires is missing from `extra`.
        """
        content = self._body(request)
        answer = await self._caller.call(
            "POST",
            self._path(request.kind),
            content=content,
            headers={"content-type": "application/json"},
            attempts=_CREATE_ATTEMPTS,
        )
        return Answer(answer.status, answer.body, answer.sent_at, request.kind, request.reference)

    async def fetch(self, kind: str, ref: str) -> Answer:
        """Fetch the operation by our id, in the account's shop, else the default one."""
        shop = self._options.shop_code
        query = "?" + urlencode({"shop_code": shop}) if shop else ""
        answer = await self._caller.call("GET", f"{self._path(kind)}/{quote(ref, safe='')}{query}")
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    def _body(self, request: CreateRequest) -> bytes:
        dialect = self._options.dialect
        for name in _OURS:
            if name in request.extra:
                raise InvalidPayfieldCreate(f"{name} is not one of the further fields", param=name)
        for name in _REQUIRED.get((dialect, request.kind), ()):
            if not request.extra.get(name):
                raise InvalidPayfieldCreate(f"Payfield requires {name} for a {request.kind}", param=name)
        amount = from_minor(request.amount_minor, request.currency)
        fields: dict[str, object] = {
            **request.extra,
            "external_id": request.reference,
            "amount": amount if dialect == "new" else Decimal(amount),
            "currency": request.currency,
        }
        if self._options.shop_code:
            fields["shop_code"] = self._options.shop_code
        if request.callback_url:
            fields["callback_url"] = require_https(
                request.callback_url, allow_loopback=self._options.allow_loopback_http
            )
        return _encoder.encode(fields)

    async def _authorize(self, _method: str, _path: str, body: bytes) -> Mapping[str, str]:
        now = self._clock().astimezone(UTC)
        is_iso = self._options.timestamp_format == "iso"
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ") if is_iso else str(int(now.timestamp()))
        signature = hmac_sha256(self._secret, stamp.encode("ascii"), body)
        return {
            "x-api-key": self._key,
            "x-timestamp": stamp,
            "x-signature": signature_text(signature, self._options.digest_encoding),
        }

    def _path(self, kind: str) -> str:
        if kind not in _PATHS:
            raise UnsupportedByProvider
        return _PATHS[kind]
