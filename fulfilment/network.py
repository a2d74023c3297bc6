"""Addresses that may be sent to, and TLS that proves a server's name."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from fulfilment.errors import AddressRefused, InvalidSink

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Answers with every address of a host, as text. Asked once for each attempt.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

LOOPBACK: Final[tuple[Network, ...]] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

#: The only range of IPv6 that is handed out to hosts of the internet. Source: IANA, IPv6 address space.
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
#: An IPv4 address in its last 32 bits, on networks without IPv4. Source: RFC 6052, section 2.1.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Not public, though `is_global` says so on some Pythons: relays and tunnels that carry another address inside, and
#: documentation. Source: IANA, IPv4 and IPv6 special-purpose address registries.
_SPECIAL: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Resolve the host to every address, in the system's order; raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_addresses(
    addresses: Iterable[str], allowed: Sequence[Network] = (), *, only_allowed: bool = False
) -> list[str]:
    """Return the addresses in canonical form if all are public or allowed.

    Raises AddressRefused otherwise.

    One bad address condemns all: a host that has it is not to be trusted with the choice. With `only_allowed`, being
    public is not enough. An IPv4-mapped IPv6 address is judged, and returned, as the IPv4 address.
    """
    found = [_plain(text) for text in addresses]
    if not found:
        raise AddressRefused("the host has no address")
    for address in found:
        is_allowed = any(address in network for network in allowed)
        if not is_allowed and (only_allowed or not is_public(address)):
            raise AddressRefused("the host has an address that is neither public nor allowed")
    return [str(address) for address in found]


def is_public(address: Address) -> bool:
    """Tell whether the address belongs to one host of the internet.

    By the same rules on every version of Python.
    """
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST_6:
        return address in _NAT64 and is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address in network for network in _SPECIAL)
    )


def _plain(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise AddressRefused("the host resolves to something that is not an address") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """Tell whether the host is this machine, by name or by literal address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class TlsContext(ssl.SSLContext):
    """A TLS context for one connection that knows whether it was used.

    Some clients go on in the clear where the server says that it has no TLS.
    """

    is_used = False  #: a handshake was begun, without which the connection is in the clear

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """Wrap as the base class does; asyncio and uvloop do it for each handshake."""
        self.is_used = True
        return super().wrap_bio(*given, **named)


def tls_context(authorities: str | None) -> TlsContext:
    """Make a context that trusts the authorities in PEM, or else the system's.

    Raises InvalidSink where they are no certificates.
    """
    tls = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities is None:
        tls.load_default_certs()
        return tls
    try:
        tls.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        raise InvalidSink("the authorities are not certificates in PEM", param="authorities") from None
    return tls
