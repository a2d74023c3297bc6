"""One way to talk to a provider over HTTPS: paced, bounded, never redirected; failures become ProviderError."""

import ipaddress
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from providers.contract import HttpAnswer, Pace
from providers.errors import AnswerTooLarge, InsecureUrl, ProviderError

MAX_ANSWER: Final = 1 << 20

#: End of the name of the step after which a request is on its way.
_HEAD_SENT: Final = ".send_request_headers.complete"


def require_https(url: str, *, allow_loopback: bool = False) -> str:
    """The URL itself when it is HTTPS (or, in development, on loopback); raises InsecureUrl otherwise."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme == "https" and host and not parts.username:
        return url
    if allow_loopback and parts.scheme == "http" and is_loopback(host):
        return url
    raise InsecureUrl("the URL must be https:// with a host and without credentials", param="url")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by name or by literal address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HttpTransport:
    """Sends through one httpx2 client, within the account's budget for callers that wait for their turn."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        pace: Pace,
        clock: Callable[[], datetime],
        *,
        allow_loopback_http: bool = False,
    ) -> None:
        self._client = client
        self._pace = pace
        self._clock = clock
        self._allow_loopback_http = allow_loopback_http

    async def turn(self) -> None:
        """Wait until the account may send one more request."""
        await self._pace.turn()

    async def send(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> HttpAnswer:
        """The answer, whatever its status; raises ProviderError where there is none.

        A failure before the request can have left is not ambiguous, and retryable unless the request itself cannot be
        sent; any later one is ambiguous. Raises AnswerTooLarge where the answer is larger than 1 MiB.
        """
        require_https(url, allow_loopback=self._allow_loopback_http)
        sent_at = self._clock()
        body = bytearray()
        steps: list[str] = []

        async def on_progress(step: str, about: dict[str, Any]) -> None:
            steps.append(step)
            await self._on_progress(step, about)

        try:
            async with self._client.stream(
                method, url, headers=dict(headers), content=content, extensions={"trace": on_progress}
            ) as answer:
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise AnswerTooLarge("the provider's answer is too large", is_ambiguous=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as fault:
            raise ProviderError(f"the provider cannot be reached ({type(fault).__name__})", may_retry=True) from fault
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL, UnicodeError) as fault:
            # such as a line break in a key: refused by our own library, and never by the provider
            is_sent = any(step.endswith(_HEAD_SENT) for step in steps)
            raise ProviderError(f"the request cannot be sent ({type(fault).__name__})", is_ambiguous=is_sent) from fault
        except httpx2.HTTPError as fault:
            raise ProviderError(
                f"the provider did not answer ({type(fault).__name__})", may_retry=True, is_ambiguous=True
            ) from fault
        lower = {name.lower(): value for name, value in answer.headers.items()}
        return HttpAnswer(answer.status_code, lower, bytes(body), sent_at)

    async def pause(self, seconds: float) -> None:
        """Nobody may send for this account for so long: the provider said so."""
        await self._pace.pause(seconds)

    async def _on_progress(self, step: str, about: dict[str, Any]) -> None:
        # Connecting has taken its time by now, and the next thing to happen is the request's first byte.
        if step.endswith(".send_request_headers.started") and about["request"].method != b"CONNECT":
            await self._pace.leave()
