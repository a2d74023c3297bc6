"""Effects to people by e-mail: a mail server has taken it, over TLS that proves the server's name."""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from fulfilment import tls
from fulfilment.addresses import LOOPBACK, Network, Resolver, checked, is_loopback, resolve
from fulfilment.contract import Failed, OwedEffect, Result
from fulfilment.email_session import Server, Session
from fulfilment.email_text import Letterhead, mail
from fulfilment.errors import AddressRefused, InsecureSinkUrl, InvalidSink

TIMEOUT: Final = 15.0
_MAX_ADDRESSES: Final = 4  #: tried in turn while none of them can be connected to
_PORTS: Final = {"smtps": 465, "smtp": 587}  # RFC 8314, sections 3.3 and 3.1
#: An address as servers everywhere take it; quoted and non-ASCII ones are not among them. Source: RFC 5321, 4.1.2.
_ADDRESS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PRINTABLE: Final = re.compile(r"[ -~]*")


class EmailSink:
    """Mails each effect to all recipients at once, at least once; done only when the server has taken the message.

    `url` is smtps:// (TLS from the first byte) or smtp:// (STARTTLS, without which nothing is said); the certificate
    must prove the host. Only with `allow_loopback`, and to this machine, is plain text spoken. A repeat of an effect
    is the same mail with the same Message-ID. A refusal of every recipient, or of the message, with a 5xx is final;
    whatever else fails is tried again. A refusal of some recipients is logged, and the effect delivered, since the
    others have it. `timeout` is in seconds and covers all of it.

    Raises InvalidSink or InsecureSinkUrl at construction.
    """

    def __init__(
        self,
        name: str,
        url: str,
        head: Letterhead,
        *,
        username: str = "",
        password: str = "",
        authorities: str | None = None,
        allowed_networks: Sequence[Network] = (),
        allow_loopback: bool = False,
        timeout: float = TIMEOUT,
        resolver: Resolver = resolve,
        threads: int = 4,
    ) -> None:
        if timeout <= 0:
            raise InvalidSink("a sink's timeout is above 0 seconds", param="timeout")
        self.name = name
        scheme, host, port = read_url(url)
        self._is_plain = scheme == "smtp" and allow_loopback and is_loopback(host)
        _require(head, username, password)
        self._head = head
        context = None if self._is_plain else tls.context(authorities)
        self._server = Server(host, port, scheme == "smtps", context, username, password, head.domain)
        self._allowed = (*allowed_networks, *(LOOPBACK if allow_loopback and is_loopback(host) else ()))
        self._timeout = timeout
        self._resolver = resolver
        self.threads = threads  #: what bounds how many conversations are held at once
        # Threads of its own: a server that hangs must not take those that the database calls need.
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"email-{name}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._server.host!r})"

    async def deliver(self, owed: OwedEffect, now: datetime) -> Result:
        """One conversation with the server; ended, with its thread, when the time is up."""
        try:
            message = mail(owed, self._head)
        except ValueError:
            return Failed("the payload is none of an effect", is_final=True)
        session = Session(self._server, self._timeout)
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._resolver(self._server.host, self._server.port)
                addresses = checked(found, self._allowed, only_allowed=self._is_plain)[:_MAX_ADDRESSES]
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, session.send, addresses, message, self._head.sender, self._head.recipients
                )
        except AddressRefused as refused:
            return Failed(refused.message)
        except TimeoutError:
            return Failed(f"no answer within {self._timeout:g} s")
        except (OSError, UnicodeError) as fault:
            return Failed(f"no answer ({type(fault).__name__})")
        finally:
            session.abort()

    async def aclose(self) -> None:
        """Begin no more conversations; a repeat does nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def read_url(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a mail server's URL; raises InsecureSinkUrl for any other, and for one with more."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InsecureSinkUrl("it is no URL", param="url") from None
    host = (parts.hostname or "").rstrip(".")
    is_bare = not (parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/"))
    if parts.scheme not in _PORTS or not host or not is_bare or "%" in host or not host.isascii():
        words = "a mail server's URL is smtps://host:465 or smtp://host:587, without credentials, path or query"
        raise InsecureSinkUrl(words, param="url")
    return parts.scheme, host, port or _PORTS[parts.scheme]


def is_address(text: str) -> bool:
    """Whether it is an address that every mail server takes."""
    return _ADDRESS.fullmatch(text) is not None


def is_printable(text: str) -> bool:
    """Whether the text can be said to a mail server: printable ASCII."""
    return _PRINTABLE.fullmatch(text) is not None


def _require(head: Letterhead, username: str, password: str) -> None:
    for param, address in (("sender", head.sender), *(("recipients", each) for each in head.recipients)):
        if not is_address(address):
            raise InvalidSink("it is no e-mail address such as on-call@example.com", param=param)
    if not head.recipients:
        raise InvalidSink("nobody is named to send to", param="recipients")
    if bool(username) != bool(password) or not is_printable(username + password):
        raise InvalidSink("username and password are given together, in printable ASCII", param="password")
