"""Calls to a provider's API: authorise, send, renew the token, retry, name errors."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec
import stamina

from providers.contract import HttpAnswer, Transport
from providers.errors import ProviderError

#: Ask for a new token this long before the old one ends, for clocks that differ.
_TOKEN_MARGIN: Final = timedelta(seconds=30)

#: Seconds after which a token is renewed whatever the provider says of it.
_LONGEST_TOKEN: Final = 86_400

#: Seconds to keep everybody quiet after a 429 that does not say how long.
_PAUSE_ON_429: Final = 1.0

Headers = Mapping[str, str]
Authorize = Callable[[str, str, bytes], Awaitable[Headers]]


def basic_auth(user: str, password: str) -> str:
    """Return the value of an Authorization header by RFC 7617."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class Caller:
    """Sends the requests of one provider client."""

    def __init__(
        self,
        base_url: str,
        transport: Transport,
        authorize: Authorize,
        name_error: Callable[[HttpAnswer], ProviderError],
        *,
        forget_token: Callable[[], None] | None = None,
    ) -> None:
        self._base_url = base_url
        self._transport = transport
        self._authorize = authorize
        self._name_error = name_error
        self._forget_token = forget_token

    async def call(
        self, method: str, path: str, *, content: bytes = b"", headers: Headers | None = None, attempts: int = 1
    ) -> HttpAnswer:
        """Return a 2xx answer; raise the ProviderError that any other one stands for.

        With `attempts` above 1 the very same request is repeated after retryable errors, waiting as long as the
        provider says, else with exponential back-off and jitter. Allow that only where a repeat is harmless.
        A 429 pauses everybody who sends for this account. The error is ambiguous where any of the attempts was.
        """
        is_in_doubt = False
        async for attempt in stamina.retry_context(
            on=_retry_after, attempts=attempts, timeout=60, wait_initial=0.2, wait_max=8
        ):
            with attempt:
                try:
                    return await self._once(method, path, content, headers or {})
                except ProviderError as error:
                    # A later refusal does not say that an earlier attempt without an answer did nothing.
                    is_in_doubt = error.is_ambiguous = error.is_ambiguous or is_in_doubt
                    raise
        raise AssertionError("unreachable: stamina re-raises the last error")

    async def _once(self, method: str, path: str, content: bytes, headers: Headers) -> HttpAnswer:
        answer = await self._send(method, path, content, headers)
        if answer.status == 401 and self._forget_token is not None:
            self._forget_token()
            answer = await self._send(method, path, content, headers)
        if 200 <= answer.status < 300:
            return answer
        error, is_limited = _named(answer, self._name_error), answer.status == 429
        del answer  # the error outlives it, and nothing of what was refused is kept
        try:
            if is_limited:
                await self._transport.pause(error.retry_after or _PAUSE_ON_429)
            raise error
        finally:
            del error  # a frame that names the exception on its way through it is a cycle

    async def _send(self, method: str, path: str, content: bytes, headers: Headers) -> HttpAnswer:
        await self._transport.turn()
        try:
            authorization = await self._authorize(method, path, content)
        except ProviderError as error:
            error.is_ambiguous, error.is_unsent = False, True
            raise
        return await self._transport.send(
            method, self._base_url + path, headers={**headers, **authorization}, content=content
        )


def _named(answer: HttpAnswer, name_error: Callable[[HttpAnswer], ProviderError]) -> ProviderError:
    """Name the error of an answer; neither success nor refusal means unknown outcome."""
    if answer.status >= 400:
        return name_error(answer)
    return ProviderError(
        f"the provider answered {answer.status}, which is neither success nor refusal; it is not followed",
        type="api_error",
        http_status=answer.status,
        is_ambiguous=True,
    )


def _retry_after(fault: Exception) -> bool | float:
    if not isinstance(fault, ProviderError) or not fault.may_retry:
        return False
    return True if fault.retry_after is None else fault.retry_after


class ClientCredentials:
    """An OAuth 2 client-credentials token, kept until shortly before `expires_in`."""

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        transport: Transport,
        clock: Callable[[], datetime],
        name_error: Callable[[HttpAnswer], ProviderError],
        *,
        scope: str = "",
    ) -> None:
        self._token_url = token_url
        self._basic = basic_auth(client_id, client_secret)
        self._transport = transport
        self._clock = clock
        self._name_error = name_error
        self._form = b"grant_type=client_credentials" + (f"&scope={scope}".encode() if scope else b"")
        self._token = ""
        self._ends_at: datetime | None = None
        self._fetching = asyncio.Lock()  # whoever comes while a token is fetched waits for that one

    def forget(self) -> None:
        """Forget a refused token: the next call fetches another."""
        self._ends_at = None

    async def header(self, _method: str, _path: str, _body: bytes) -> Headers:
        """Return the Authorization header with a valid token; raise ProviderError."""
        async with self._fetching:
            if self._ends_at is None or self._clock() >= self._ends_at:
                await self._fetch()
        return {"authorization": f"Bearer {self._token}"}

    async def _fetch(self) -> None:
        await self._transport.turn()
        answer = await self._transport.send(
            "POST",
            self._token_url,
            headers={"authorization": self._basic, "content-type": "application/x-www-form-urlencoded"},
            content=self._form,
        )
        if answer.status != 200:
            error = _named(answer, self._name_error)
            if answer.status == 429:
                await self._transport.pause(error.retry_after or _PAUSE_ON_429)
            raise error
        try:
            granted = msgspec.json.decode(answer.body, type=_Granted)
        except (ValueError, RecursionError) as fault:  # broken UTF-8 and deep nesting are no MsgspecError
            raise ProviderError("the provider's token answer is unreadable") from fault
        lifetime = timedelta(seconds=min(max(granted.expires_in, 0), _LONGEST_TOKEN))
        self._token = granted.access_token
        self._ends_at = answer.sent_at + max(lifetime - _TOKEN_MARGIN, lifetime / 2)


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float
