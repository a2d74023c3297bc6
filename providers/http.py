"""HTTP client for providers: HTTPS, paced, bounded, never redirected.

Failures become ProviderError.
"""

import ipaddress
import re
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from providers import decoding
from providers.contract import HttpAnswer, Pace
from providers.errors import AnswerTooLarge, InsecureUrl, ProviderError

#: Control characters, white space of every kind, halves of surrogate pairs, and what browsers read as a slash.
_MISREAD: Final = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\\\\\\s]")

#: Bytes of a 2xx answer, unpacked; a larger one is refused.
MAX_ANSWER: Final = 1 << 20

#: Bytes that are read of any other answer: more than any error needs to say why.
MAX_REFUSAL_BYTES: Final = 1 << 16

#: What our requests take. Others are refused, since nothing bounds what they unpack to.
_ENCODINGS: Final = {"": None, "identity": None, "gzip": 31, "x-gzip": 31, "deflate": 15}

#: Faults of a request that cannot be written as HTTP, such as one with a line break in a header.
_UNSENDABLE: Final = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL, UnicodeError)


def require_https(url: str, *, allow_loopback: bool = False, param: str = "url") -> str:
    """Return the URL if it is HTTPS (in development, or loopback); raise InsecureUrl.

    White space, control characters and backslashes make it none: parsers leave them out, or take them for slashes.
    """
    parts = _parts_of(url)
    if parts is not None:
        scheme, host = parts
        if scheme == "https" or (allow_loopback and scheme == "http" and is_loopback(host)):
            return url
    raise InsecureUrl("the URL must be https:// with a host and without credentials", param=param)


def page_url(value: object, *, allow_loopback: bool = False) -> str | None:
    """Return the text if it is a URL that a payer may be sent to, else None."""
    if not isinstance(value, str) or len(value) > decoding.MAX_TEXT:
        return None
    try:
        return require_https(value, allow_loopback=allow_loopback)
    except InsecureUrl:
        return None


def _parts_of(url: str) -> tuple[str, str] | None:
    """Return scheme and host if every parser finds the same ones, else None.

    A URL with a user, or without a host, has none.
    """
    if _MISREAD.search(url):
        return None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    return (parts.scheme, host) if host and "@" not in parts.netloc else None


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine, by name or literal address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HttpTransport:
    """Sends through one httpx2 client, within the account's budget."""

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
        """Return the answer, whatever its status; raise ProviderError where there is none.

        A failure before the request can have left is retryable and not ambiguous; any later one is ambiguous. A request
        that cannot be written as HTTP is neither: it was not sent, and never will be. Raises AnswerTooLarge where a 2xx
        is larger than 1 MiB; of any other answer the beginning is returned. Nothing of what was refused is kept.
        """
        require_https(url, allow_loopback=self._allow_loopback_http)
        answered = await self._answer(method, url, headers, content)
        try:
            if isinstance(answered, ProviderError):
                raise answered
            return answered
        finally:
            del answered  # a frame that names the exception on its way through it is a cycle

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes
    ) -> HttpAnswer | ProviderError:
        """Return the answer, or the error to raise, which refers to nothing that was read."""
        sent_at = self._clock()
        is_sent = False

        async def on_progress(step: str, about: dict[str, Any]) -> None:
            nonlocal is_sent
            is_sent = is_sent or step.endswith(".send_request_headers.complete")
            await self._on_progress(step, about)

        try:
            async with self._client.stream(
                method,
                url,
                headers={"accept-encoding": "gzip", **headers},
                content=content,
                extensions={"trace": on_progress},
            ) as answer:
                body = await _body_of(answer)
                lower = {name.lower(): value for name, value in answer.headers.items()}
                return body if isinstance(body, ProviderError) else HttpAnswer(answer.status_code, lower, body, sent_at)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as fault:
            return ProviderError(f"the provider cannot be reached ({type(fault).__name__})", may_retry=True)
        except (httpx2.HTTPError, *_UNSENDABLE) as fault:
            name = type(fault).__name__
            if isinstance(fault, _UNSENDABLE) and not is_sent:
                words = f"nothing was sent: the request cannot be written as HTTP ({name})"
                return ProviderError(words, provider_code="unsendable", is_unsent=True)
            return ProviderError(f"the provider did not answer ({name})", may_retry=True, is_ambiguous=True)

    async def pause(self, seconds: float) -> None:
        """Stop sending for this account for these seconds, as the provider asked."""
        await self._pace.pause(seconds)

    async def _on_progress(self, step: str, about: dict[str, Any]) -> None:
        # Connecting has taken its time by now, and the next thing to happen is the request's first byte.
        if step.endswith(".send_request_headers.started") and about["request"].method != b"CONNECT":
            await self._pace.leave()


async def _body_of(answer: httpx2.Response) -> bytes | ProviderError:
    """Return the body, read up to the limit and no further, or why it is refused."""
    is_success = 200 <= answer.status_code < 300
    bound = MAX_ANSWER if is_success else MAX_REFUSAL_BYTES
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        return _untaken("is in an encoding that was not asked for", is_success=is_success)
    window_bits = _ENCODINGS[encoding]
    unpacker = None if window_bits is None else zlib.decompressobj(window_bits)
    body = bytearray()
    async for chunk in answer.aiter_raw():
        try:
            body += chunk if unpacker is None else unpacker.decompress(chunk, bound + 1 - len(body))
        except zlib.error:
            return _untaken("cannot be unpacked", is_success=is_success)
        if len(body) > bound:
            return (
                AnswerTooLarge("the provider's answer is too large", is_ambiguous=True)
                if is_success
                else bytes(body[:bound])
            )
    if unpacker is not None and body and not unpacker.eof:
        return _untaken("cannot be unpacked", is_success=is_success)
    return bytes(body)


def _untaken(why: str, *, is_success: bool) -> bytes | ProviderError:
    """Of a refusal its status says enough; a success that says nothing is no answer."""
    return ProviderError(f"the provider's answer {why}", is_ambiguous=True) if is_success else b""
