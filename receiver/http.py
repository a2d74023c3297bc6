"""HTTP of the intake: client addresses, bounded bodies, rate limits, answers."""

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from receiver.errors import BodyTooLarge, BodyTooSlow, ClientGone
from statemachine.errors import ServiceError
from storage.token_buckets import BucketRate, LocalBuckets

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Peer:
    """The client's address as far as it can be trusted.

    `is_secure` says whether its request was encrypted on the way.
    """

    address: str
    is_secure: bool


def peer_of(scope: Scope, trusted: Sequence[Network], *, is_development: bool) -> Peer:
    """Find the peer of a request. In development, loopback counts as secure."""
    client = scope.get("client")
    address = client[0] if client else ""
    is_secure = scope.get("scheme") == "https"
    if _lies_in(address, trusted):
        forwarded = _header(scope, b"x-forwarded-proto")
        is_secure = is_secure or forwarded.split(",")[-1].strip().lower() == "https"
        address = _nearest_untrusted_hop(_header(scope, b"x-forwarded-for"), trusted) or address
    if is_development and _is_loopback(address):
        is_secure = True
    return Peer(_unmapped(address), is_secure)


def is_secure(
    client: str,
    scheme: str,
    headers: Sequence[tuple[bytes, bytes]],
    trusted: Sequence[Network],
    *,
    is_development: bool,
) -> bool:
    """Tell whether the peer of a request with these would be secure."""
    if scheme == "https":
        return True
    if not trusted:
        return is_development and _is_loopback(client)
    scope = {"client": (client, 0) if client else None, "scheme": scheme, "headers": headers}
    return peer_of(scope, trusted, is_development=is_development).is_secure


def is_inside(address: str, networks: Sequence[Network]) -> bool:
    """Tell whether the address is loopback, or in one of these networks."""
    return _is_loopback(address) or _lies_in(address, networks)


def client_key(address: str) -> str:
    """Return the key to count a client by: an IPv4 address, or an IPv6 /64.

    Anything else is counted as it is written.
    """
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, 64), strict=False))
    return address if parsed is None else str(parsed)


def _unmapped(address: str) -> str:
    """Return 192.0.2.1 for ::ffff:192.0.2.1, and any other address unchanged."""
    parsed = _parsed(address)
    return str(parsed) if isinstance(parsed, IPv4Address) else address


def _nearest_untrusted_hop(forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the last address that a trusted proxy saw.

    What stands before it was written by the client.
    """
    for hop in reversed([_without_port(part.strip()) for part in forwarded_for.split(",") if part.strip()]):
        if not _lies_in(hop, trusted):
            return hop[:64]
    return ""


def _without_port(hop: str) -> str:
    """Remove the port, which would make every connection a new client.

    Some proxies write 192.0.2.1:4711 and [2001:db8::1]:4711.
    """
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _lies_in(address: str, networks: Sequence[Network]) -> bool:
    if not networks:
        return False
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


@lru_cache(1024)  # it is asked of every delivery in development
def _is_loopback(address: str) -> bool:
    parsed = _parsed(address)
    return parsed is not None and parsed.is_loopback


@lru_cache(1024)  # the same proxies and providers ask again and again
def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    # a socket that takes both IPv4 and IPv6 shows 192.0.2.1 as ::ffff:192.0.2.1
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed


def _header(scope: Scope, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


async def read_body(scope: Scope, receive: Receive, *, at_most: int, seconds: float) -> bytes:
    """Read the exact bytes of the body.

    Raises BodyTooLarge as soon as it is known to be, BodyTooSlow, or ClientGone.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > at_most:
            raise BodyTooLarge(f"a body may have {at_most} bytes")
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, at_most)
    except TimeoutError:
        raise BodyTooSlow(f"a body must arrive within {seconds:g} seconds") from None


async def _read(receive: Receive, at_most: int) -> bytes:
    first = b""
    body: bytearray | None = None
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        chunk = event.get("body", b"")
        if len(chunk) + (len(first) if body is None else len(body)) > at_most:
            raise BodyTooLarge(f"a body may have {at_most} bytes")
        if body is not None:
            body += chunk
        elif first:
            body = bytearray(first + chunk)
        else:
            first = chunk
        if not event.get("more_body", False):
            return first if body is None else bytes(body)


#: Clients remembered at once; the one heard of longest ago is forgotten first.
MAX_CLIENTS: Final = 10_000


class UnverifiedLimit:
    """A token bucket of `per_minute` refusals for each client and account."""

    def __init__(self, per_minute: int) -> None:
        self._buckets = LocalBuckets(BucketRate(per_minute / 60, per_minute), max_keys=MAX_CLIENTS)

    def allows(self, client: str, account: str, at: float) -> bool:
        """Count one refusal and tell whether it is within the limit.

        `at` is in seconds of any origin.
        """
        return self._buckets.take_at(f"{client_key(client)} {account}", at).is_granted


_RETRY_AFTER = {429: b"60", 503: b"5"}


def headers_of(status: int) -> list[tuple[bytes, bytes]]:
    """Of an answer with this status, without its length."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if status in _RETRY_AFTER:
        headers.append((b"retry-after", _RETRY_AFTER[status]))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return headers


async def send_json(send: Send, status: int, content: Mapping[str, object], *, is_head: bool = False) -> None:
    """One complete JSON answer."""
    body = msgspec.json.encode(content)
    headers = [*headers_of(status), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def send_text(send: Send, status: int, text: str, *, is_head: bool = False) -> None:
    """One complete answer in plain text."""
    body = text.encode()
    headers = [(name, value) for name, value in headers_of(status) if name != b"content-type"]
    headers += [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def send_error(send: Send, error: ServiceError, request_id: str, *, is_head: bool = False) -> None:
    """Send the error in the one shape that every error of this service has."""
    await send_json(send, error.status, error.as_json(request_id), is_head=is_head)
