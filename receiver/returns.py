"""The payer comes back from checkout: a hint to ask now, and a redirect to the merchant's page."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from receiver.errors import NotHttps
from receiver.peer import Network, peer_of
from receiver.tokens import About, Tokens
from receiver.writer import GroupWriter
from statemachine.phases import Source
from storage import payments
from storage.database import Database
from storage.intake import arrived
from storage.tables import Payment

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
        """Record the hint and send the payer on; says nothing about whether the payment was made."""
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
