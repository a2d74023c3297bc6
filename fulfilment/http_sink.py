"""Effects over HTTPS, signed by Standard Webhooks; to checked addresses only, never redirected."""

import asyncio
import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import httpx2

from fulfilment.addresses import LOOPBACK, Network, Resolver, checked, is_loopback, resolve
from fulfilment.backoff import read_retry_after
from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.errors import AddressRefused, InsecureSinkUrl, InvalidSink
from fulfilment.signing import Signer

#: What is read of an answer, so that its connection can be used again; nothing of it is kept.
MAX_ANSWER: Final = 64 * 1024
TIMEOUT: Final = 15.0
_CONNECT_TIMEOUT: Final = 5.0
_MAX_ADDRESSES: Final = 4  #: tried in turn while none of them can be connected to
#: Statuses whose Retry-After is honoured: too many requests, or a gateway or service that is overloaded.
_BUSY: Final = frozenset({429, 502, 503, 504})


class HttpSink:
    """POSTs each effect to one URL, at least once; done only when a 2xx came back.

    A 3xx is a failure and is not followed. 410 is final, as the receiver wants no more of it. 429, 502, 503 and 504
    may carry a Retry-After; every other answer, and none at all, is tried again by schedule. `timeout` is in seconds
    and covers everything from the look-up of the host to the end of the answer.

    Raises InvalidSink, InsecureSinkUrl or InvalidSigningKey at construction. The sink owns its connections, because
    a TLS connection made for another host must not be used for this one. Proxies of the environment are not used:
    they would resolve the host again. Source: Standard Webhooks, specification.
    """

    def __init__(
        self,
        name: str,
        url: str,
        keys: Sequence[str],
        *,
        allowed_networks: Sequence[Network] = (),
        allow_loopback: bool = False,
        timeout: float = TIMEOUT,
        max_connections: int = 100,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if timeout <= 0:
            raise InvalidSink("a sink's timeout is above 0 seconds", param="timeout")
        self.name = name
        self._signer = Signer(keys)
        self._url = _target(url, allow_loopback=allow_loopback)
        self._host = self._url.raw_host.decode("ascii")
        self._is_secure = self._url.scheme == "https"
        is_local = allow_loopback and is_loopback(self._host)
        # Without TLS, to this machine only: other allowed networks need it as well.
        self._allowed = (*(allowed_networks if self._is_secure else ()), *(LOOPBACK if is_local else ()))
        self._timeout = timeout
        self._resolver = resolver
        self._client = httpx2.AsyncClient(
            verify=tls if tls is not None else True,
            timeout=httpx2.Timeout(timeout, connect=min(_CONNECT_TIMEOUT, timeout)),
            limits=httpx2.Limits(max_connections=max_connections),
            follow_redirects=False,
            trust_env=False,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._host!r})"

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """One signed POST with `webhook-id` of the effect; the timestamp, and so the signature, is of this attempt."""
        answers: list[httpx2.Response] = []
        try:
            async with asyncio.timeout(self._timeout):
                await self._attempt(owed, now, answers)
        except AddressRefused as refused:
            return Failed(refused.message)
        except TimeoutError:
            fault = f"no answer within {self._timeout:g} s"
        except (httpx2.HTTPError, OSError, UnicodeError) as error:
            fault = f"no answer ({type(error).__name__})"
        else:
            fault = ""
        # The status counts even where the rest of the answer was cut off: the receiver has said it.
        return _read(answers[0], now) if answers else Failed(fault)

    async def _attempt(self, owed: OwedEffect, now: datetime, answers: list[httpx2.Response]) -> None:
        port = self._url.port or (443 if self._is_secure else 80)
        found = await self._resolver(self._host, port)
        addresses = checked(found, self._allowed, only_allowed=not self._is_secure)[:_MAX_ADDRESSES]
        for number, address in enumerate(addresses, start=1):
            try:
                await self._post(address, owed, now, answers)
                return
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                # Nothing was sent, so that the next address is still the same attempt.
                if number == len(addresses):
                    raise

    async def _post(self, address: str, owed: OwedEffect, now: datetime, answers: list[httpx2.Response]) -> None:
        body = owed.payload.encode()
        message_id, timestamp = f"msg_{owed.id}", int(now.timestamp())
        headers = {
            "host": self._url.netloc.decode("ascii"),
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "receipted",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": self._signer.sign(message_id, timestamp, body),
        }
        if owed.traceparent is not None:
            headers["traceparent"] = owed.traceparent
        # The name is gone from the URL, so nothing below can look it up again; TLS still proves the name.
        url = self._url.copy_with(host=address)
        extensions = {"sni_hostname": self._host.rstrip(".")}
        async with self._client.stream("POST", url, headers=headers, content=body, extensions=extensions) as answer:
            answers.append(answer)
            size = 0
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > MAX_ANSWER:
                    return

    async def aclose(self) -> None:
        """Close every connection; a repeat does nothing."""
        await self._client.aclose()


def _target(url: str, *, allow_loopback: bool) -> httpx2.URL:
    try:
        target = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise InsecureSinkUrl(param="url") from None
    is_local = allow_loopback and target.scheme == "http" and is_loopback(target.host)
    if (target.scheme != "https" and not is_local) or not target.host or target.userinfo or "%" in target.host:
        raise InsecureSinkUrl(param="url")
    return target


def _read(answer: httpx2.Response, now: datetime) -> Result:
    status = answer.status_code
    if 200 <= status < 300:
        return Delivered(status)
    if 300 <= status < 400:
        return Failed(f"answered {status}: redirects are not followed", status)
    if status == 410:
        return Failed("answered 410: the receiver wants no more", status, is_final=True)
    retry_after = read_retry_after(answer.headers.get("retry-after"), now) if status in _BUSY else None
    return Failed(f"answered {status}", status, retry_after)
