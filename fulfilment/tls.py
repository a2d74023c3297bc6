"""TLS to brokers and mail servers: certificates and names are verified, and whether a handshake took place is known."""

import ssl
from typing import Any

from fulfilment.errors import InvalidSink


class Tls(ssl.SSLContext):
    """A context for one connection. Some clients go on in the clear where the server says that it has no TLS."""

    is_used = False  #: a handshake was begun, without which the connection is in the clear

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """As the base class; asyncio and uvloop come through here for each handshake."""
        self.is_used = True
        return super().wrap_bio(*given, **named)


def context(authorities: str | None) -> Tls:
    """Trusts the given authorities in PEM, or else the system's; raises InvalidSink where they are no certificates."""
    tls = Tls(ssl.PROTOCOL_TLS_CLIENT)
    if authorities is None:
        tls.load_default_certs()
        return tls
    try:
        tls.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        raise InvalidSink("the authorities are not certificates in PEM", param="authorities") from None
    return tls
