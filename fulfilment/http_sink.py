"""Effects over HTTPS, signed by Standard Webhooks, to checked addresses only."""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import httpx2

from fulfilment.backoff import read_retry_after
from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.errors import AddressRefused, InsecureSinkUrl, InvalidSink
from fulfilment.http_connection import HttpConnection, NoAnswer, SinkResponse, connect
from fulfilment.network import LOOPBACK, Network, Resolver, check_addresses, is_loopback, resolve_host
from fulfilment.signing import Signer

TIMEOUT_S: Final = 15.0
_CONNECT_TIMEOUT_S: Final = 5.0
_MAX_ADDRESSES: Final = 4  #: tried in turn while none of them can be connected to
#: A connection that was not used for so long is closed: servers close theirs after five seconds and more.
_MAX_IDLE_S: Final = 4.0
#: A connection is used for so long, so that a host that has moved is followed.
_MAX_AGE_S: Final = 60.0
#: Statuses whose Retry-After is honoured: too many requests, or a gateway or service that is overloaded.
_BUSY: Final = frozenset({429, 502, 503, 504})


class HttpSink:
    """POSTs each effect to one URL, at least once; done only when a 2xx came back.

    A 3xx is a failure and is not followed. 410 is final, as the receiver wants no more of it. 429, 502, 503 and 504
    may carry a Retry-After; every other answer, and none at all, is tried again by schedule. `timeout` is in seconds
    and covers everything from the look-up of the host to the end of the answer.

    Connections are kept and used again, each by one delivery at a time; the host is looked up, and its addresses are
    checked, for every connection. Raises InvalidSink, InsecureSinkUrl or InvalidSigningKey at construction. Proxies of
    the environment are not used: they would resolve the host again. Source: Standard Webhooks, specification.
    """

    def __init__(
        self,
        name: str,
        url: str,
        keys: Sequence[str],
        *,
        allowed_networks: Sequence[Network] = (),
        allow_loopback: bool = False,
        timeout: float = TIMEOUT_S,
        resolver: Resolver = resolve_host,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if timeout <= 0:
            raise InvalidSink("a sink's timeout is above 0 seconds", param="timeout")
        self.name = name
        self._signer = Signer(keys)
        target = _target(url, allow_loopback=allow_loopback)
        self._host = target.raw_host.decode("ascii")
        self._is_secure = target.scheme == "https"
        self._port = target.port or (443 if self._is_secure else 80)
        is_local = allow_loopback and is_loopback(self._host)
        # Without TLS, to this machine only: other allowed networks need it as well.
        self._allowed = (*(allowed_networks if self._is_secure else ()), *(LOOPBACK if is_local else ()))
        self._timeout = timeout
        self._resolver = resolver
        self._tls = (tls or httpx2.create_ssl_context()) if self._is_secure else None
        self._head = _head(target)
        self._idle: list[tuple[HttpConnection, asyncio.TimerHandle]] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._host!r})"

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """Send one signed POST with the effect's `webhook-id`.

        The timestamp, and so the signature, is of this attempt.
        """
        used: list[HttpConnection] = []
        try:
            async with asyncio.timeout(self._timeout):
                return _read(await self._post(self._request(owed, now), used), now)
        except AddressRefused as refused:
            return Failed(refused.message)
        except TimeoutError:
            fault = f"no answer within {self._timeout:g} s"
        except (OSError, UnicodeError) as error:
            fault = f"no answer ({type(error).__name__})"
        # The status counts even where the rest of the answer was cut off: the receiver has said it.
        head = used[-1].answer if used else None
        return Failed(fault) if head is None else _read(SinkResponse(head, used[-1].body), now)

    async def _post(self, request: bytes, used: list[HttpConnection]) -> SinkResponse:
        """Post on a kept or new connection and return the answer.

        `used` ends with the connection that it came on, or would have come on.
        """
        kept = self._take_idle()
        if kept is not None:
            with suppress(NoAnswer):  # closed by the other side while it was idle: the same attempt, on another
                return await self._post_on(kept, request, used)
        return await self._post_on(await self._connect(), request, used)

    async def _post_on(self, connection: HttpConnection, request: bytes, used: list[HttpConnection]) -> SinkResponse:
        used.append(connection)
        answer = await connection.post(request)
        if connection.is_reusable:
            closing = asyncio.get_running_loop().call_later(_MAX_IDLE_S, self._drop, connection)
            self._idle.append((connection, closing))
        return answer

    async def _connect(self) -> HttpConnection:
        found = await self._resolver(self._host, self._port)
        addresses = check_addresses(found, self._allowed, only_allowed=not self._is_secure)[:_MAX_ADDRESSES]
        for number, address in enumerate(addresses, start=1):
            try:
                async with asyncio.timeout(min(_CONNECT_TIMEOUT_S, self._timeout)):
                    # The address is one, so that nothing below can look the name up again; TLS proves the name.
                    return await connect(address, self._port, self._tls, self._host)
            except OSError:  # a TimeoutError is one
                # Nothing was sent, so that the next address is still the same attempt.
                if number == len(addresses):
                    raise
        raise NoAnswer

    def _take_idle(self) -> HttpConnection | None:
        """Take the connection that was used last, where one is idle and not too old."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, closing = self._idle.pop()
            closing.cancel()
            if connection.is_reusable and now - connection.opened_at < _MAX_AGE_S:
                return connection
            connection.close()
        return None

    def _drop(self, connection: HttpConnection) -> None:
        self._idle = [each for each in self._idle if each[0] is not connection]
        connection.close()

    def _request(self, owed: OwedEffect, now: datetime) -> bytes:
        body = owed.payload.encode()
        message_id, timestamp = f"msg_{owed.id}", int(now.timestamp())
        lines = [
            self._head,
            f"content-length: {len(body)}",
            f"webhook-id: {message_id}",
            f"webhook-timestamp: {timestamp}",
            f"webhook-signature: {self._signer.sign(message_id, timestamp, body)}",
        ]
        if owed.traceparent is not None:
            lines.append(f"traceparent: {owed.traceparent}")
        return "\r\n".join((*lines, "\r\n")).encode("ascii") + body

    async def aclose(self) -> None:
        """Close every connection that is idle; a repeat does nothing."""
        while (connection := self._take_idle()) is not None:
            connection.close()


def _head(target: httpx2.URL) -> str:
    """Write the lines that every request begins with."""
    lines = (
        f"POST {target.raw_path.decode('ascii')} HTTP/1.1",
        f"host: {target.netloc.decode('ascii')}",
        "content-type: application/json",
        "accept-encoding: identity",
        "user-agent: receipted",
    )
    return "\r\n".join(lines)


def _target(url: str, *, allow_loopback: bool) -> httpx2.URL:
    try:
        target = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise InsecureSinkUrl(param="url") from None
    is_local = allow_loopback and target.scheme == "http" and is_loopback(target.host)
    if (target.scheme != "https" and not is_local) or not target.host or target.userinfo or "%" in target.host:
        raise InsecureSinkUrl(param="url")
    return target


def _read(answer: SinkResponse, now: datetime) -> Result:
    (status, retry_after), body = answer
    if 200 <= status < 300:
        return Delivered(status, body)
    if 300 <= status < 400:
        return Failed(f"answered {status}: redirects are not followed", status, answer=body)
    if status == 410:
        return Failed("answered 410: the receiver wants no more", status, is_final=True, answer=body)
    wait = read_retry_after(retry_after, now) if status in _BUSY else None
    return Failed(f"answered {status}", status, wait, answer=body)
