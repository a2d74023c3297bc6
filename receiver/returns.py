"""The payer's return from checkout, and the tokens of callback and return URLs."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Literal

from itsdangerous import BadData, URLSafeSerializer
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from receiver.errors import NotHttps, UnknownToken
from receiver.group_commit import GroupWriter
from receiver.http import Network, peer_of
from statemachine.phases import Source
from storage import payments
from storage.database import Database
from storage.intake import arrived
from storage.tables import Payment

Purpose = Literal["callback", "return"]


@dataclass(frozen=True, slots=True)
class About:
    """The payment that a token stands for."""

    account: str
    kind: str
    payment_id: str


class Tokens:
    """Issue and read signed tokens.

    The last key signs, every key verifies, so that keys can be rotated.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._by_purpose = {
            purpose: URLSafeSerializer(list(keys), salt=f"receipted.{purpose}") for purpose in ("callback", "return")
        }

    def issue(self, purpose: Purpose, about: About) -> str:
        """Issue a token that `read` accepts for the same purpose only."""
        return str(self._by_purpose[purpose].dumps([about.account, about.kind, about.payment_id]))

    def read(self, purpose: Purpose, token: str) -> About:
        """Verify the token and return its payment.

        Raises UnknownToken for any text that was not issued for this purpose.
        """
        try:
            account, kind, payment_id = self._by_purpose[purpose].loads(token)
        except (BadData, ValueError, TypeError):
            raise UnknownToken from None
        return About(str(account), str(kind), str(payment_id))


#: A payer who reloads the page asks once in so many seconds.
_SECONDS_PER_HINT = 5


class Returns:
    """Serves `GET /return/{token}`."""

    def __init__(
        self,
        tokens: Tokens,
        writer: GroupWriter,
        database: Database,
        trusted_proxies: Sequence[Network],
        clock: Callable[[], datetime],
        *,
        is_development: bool,
    ) -> None:
        self._tokens = tokens
        self._writer = writer
        self._database = database
        self._trusted = trusted_proxies
        self._clock = clock
        self._is_development = is_development

    async def __call__(self, request: Request) -> Response:
        """Record the hint and redirect the payer; says nothing about the payment."""
        if not peer_of(request.scope, self._trusted, is_development=self._is_development).is_secure:
            raise NotHttps
        about = self._tokens.read("return", request.path_params["token"])
        payment = await asyncio.to_thread(self._payment, about)
        now = self._clock()
        await self._writer.record(
            arrived(
                account=about.account,
                source=Source.RETURN.value,
                delivery_key=f"return:{about.payment_id}:{int(now.timestamp()) // _SECONDS_PER_HINT}",
                body=b"",
                received_at=now,
                kind=about.kind,
                about=about.payment_id,
            )
        )
        headers = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
        if payment.return_url:
            return RedirectResponse(payment.return_url, 303, headers)
        reference = escape(payment.reference or payment.id)
        return HTMLResponse(_PAGE.replace("{reference}", reference), headers=headers)

    def _payment(self, about: About) -> Payment:
        with self._database.read() as unit:
            return payments.get(unit, about.payment_id)


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Thank you</title>
<meta name="viewport" content="width=device-width"><style>
body{font:1.1rem/1.5 system-ui,sans-serif;max-width:30rem;margin:20vh auto;padding:0 1rem;color-scheme:light dark}
</style><h1>Thank you</h1>
<p>We are asking your bank about payment <b>{reference}</b>. You may close this page.</p></html>
"""
