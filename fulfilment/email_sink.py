"""Effects to people by e-mail, over TLS that proves the mail server's name."""

import asyncio
import re
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from typing import Final
from urllib.parse import urlsplit

import structlog

from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.email_message import Letterhead, mail
from fulfilment.errors import AddressRefused, InsecureSinkUrl, InvalidSink
from fulfilment.network import LOOPBACK, Network, Resolver, check_addresses, is_loopback, resolve_host, tls_context

log = structlog.get_logger()

#: The only words of a server that are repeated: others might quote what was said to it. Source: RFC 3463.
_ENHANCED: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)", re.ASCII)
_CONNECT_TIMEOUT_S: Final = 5.0
_Reply = tuple[int, bytes | str]


@dataclass(frozen=True, slots=True)
class MailServer:
    """Mail server and credentials.

    `tls` is None only where plain text stays on this machine.
    """

    host: str
    port: int
    is_implicit: bool  #: TLS from the first byte, instead of by STARTTLS
    tls: ssl.SSLContext | None
    username: str = field(repr=False)
    password: str = field(repr=False)
    own_name: str  #: what this service calls itself in EHLO


class MailSession:
    """Hands over one mail, in a thread; `abort` from another ends it at its next word."""

    def __init__(self, server: MailServer, timeout: float) -> None:
        self._server = server
        self._timeout = timeout
        self._sockets: list[socket.socket] = []
        self._is_aborted = False

    def abort(self) -> None:
        """Fail what the thread waits for at once. Never raises."""
        self._is_aborted = True
        for each in self._sockets:
            with suppress(OSError):  # the base class's: that of TLS would take from the thread what it reads with
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def send(self, addresses: Sequence[str], mail: EmailMessage, sender: str, recipients: Sequence[str]) -> Result:
        """Hand over the mail and return the result.

        The first of the checked addresses that can be connected to is used.
        """
        try:
            with self._connected(addresses) as client:
                refused = client.send_message(mail, sender, list(recipients))
                if refused:  # the others have it: another attempt would tell them twice
                    log.warning("effect.refused", recipients=_numbered(refused, recipients), of=len(recipients))
                return Delivered()
        except smtplib.SMTPRecipientsRefused as fault:
            codes = [code for code, _ in fault.recipients.values()]
            is_final = len(codes) == len(recipients) and all(500 <= code < 600 for code in codes)
            return Failed(
                f"every recipient was refused ({', '.join(_numbered(fault.recipients, recipients))})", is_final=is_final
            )
        except smtplib.SMTPDataError as fault:
            return Failed(
                f"answered {_code(fault.smtp_code, fault.smtp_error)} to the message", is_final=fault.smtp_code >= 500
            )
        except smtplib.SMTPAuthenticationError as fault:
            return Failed(f"answered {_code(fault.smtp_code, fault.smtp_error)} to the username and password")
        except smtplib.SMTPSenderRefused as fault:
            return Failed(f"answered {_code(fault.smtp_code, fault.smtp_error)} to the sender")
        except smtplib.SMTPResponseException as fault:
            return Failed(f"answered {_code(fault.smtp_code, fault.smtp_error)} before the message")
        except smtplib.SMTPNotSupportedError:
            return Failed("the server offers no STARTTLS, or no way to log in that is known here")
        except ssl.SSLCertVerificationError as fault:
            return Failed(f"the certificate does not prove the host's name (verify code {fault.verify_code})")
        except (smtplib.SMTPException, OSError) as fault:
            return Failed(f"no answer ({type(fault).__name__})")

    def _connected(self, addresses: Sequence[str]) -> "_Client":
        server, stream = self._server, self._connect(addresses)
        if server.tls is not None and server.is_implicit:
            stream = self._kept(server.tls.wrap_socket(stream, server_hostname=server.host))
        client = _Client(stream, server)
        try:
            client.read_greeting()
            if server.tls is not None and not server.is_implicit:
                client.ehlo_or_helo_if_needed()
                client.starttls(context=server.tls)  # raises SMTPNotSupportedError where there is none
                self._kept(client.sock)
            if server.username:
                client.login(server.username, server.password)
        except BaseException:
            client.close()
            raise
        return client

    def _connect(self, addresses: Sequence[str]) -> socket.socket:
        last: OSError = OSError("no address")
        for address in addresses:
            if self._is_aborted:
                break
            try:
                stream = socket.create_connection((address, self._server.port), min(_CONNECT_TIMEOUT_S, self._timeout))
            except OSError as fault:
                last = fault
                continue
            stream.settimeout(self._timeout)
            return self._kept(stream)
        raise last

    def _kept(self, stream: socket.socket | None) -> socket.socket:
        if stream is None:
            raise TimeoutError
        self._sockets.append(stream)  # first, so that either this thread or whoever aborts sees the other
        if self._is_aborted:
            stream.close()
            raise TimeoutError
        return stream


class _Client(smtplib.SMTP):
    """The standard library's, on a connection that was made to a checked address."""

    def __init__(self, stream: socket.socket, server: MailServer) -> None:
        super().__init__(local_hostname=server.own_name)
        self._host = server.host  # which the certificate of STARTTLS must prove
        self.sock = stream

    def read_greeting(self) -> None:
        """Read the server's greeting; raise SMTPConnectError for anything but 220."""
        code, words = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, words)

    def __exit__(self, *_: object) -> None:
        """End the session; the mail's result is known, so errors change nothing."""
        with suppress(smtplib.SMTPException, OSError):
            self.docmd("QUIT")
        self.close()


def _numbered(refused: Mapping[str, _Reply], recipients: Sequence[str]) -> list[str]:
    """List refusals by the number of the setting, since an address is personal."""
    return [f"recipients.{at}: {_code(*refused[each])}" for at, each in enumerate(recipients) if each in refused]


def _code(code: int, words: bytes | str) -> str:
    text = words.decode("ascii", "replace") if isinstance(words, bytes) else words
    enhanced = _ENHANCED.match(text)
    return f"{code} {enhanced[0]}" if enhanced else str(code)


TIMEOUT_S: Final = 15.0
_MAX_ADDRESSES: Final = 4  #: tried in turn while none of them can be connected to
_PORTS: Final = {"smtps": 465, "smtp": 587}  # RFC 8314, sections 3.3 and 3.1
#: An address as servers everywhere take it; quoted and non-ASCII ones are not among them. Source: RFC 5321, 4.1.2.
_ADDRESS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PRINTABLE: Final = re.compile(r"[ -~]*")


class EmailSink:
    """Mail each effect to all recipients at once, at least once.

    It is delivered only when the server has taken the message.

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
        timeout: float = TIMEOUT_S,
        resolver: Resolver = resolve_host,
        threads: int = 4,
    ) -> None:
        if timeout <= 0:
            raise InvalidSink("a sink's timeout is above 0 seconds", param="timeout")
        self.name = name
        scheme, host, port = read_url(url)
        self._is_plain = scheme == "smtp" and allow_loopback and is_loopback(host)
        _require(head, username, password)
        self._head = head
        context = None if self._is_plain else tls_context(authorities)
        self._server = MailServer(host, port, scheme == "smtps", context, username, password, head.domain)
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
        session = MailSession(self._server, self._timeout)
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._resolver(self._server.host, self._server.port)
                addresses = check_addresses(found, self._allowed, only_allowed=self._is_plain)[:_MAX_ADDRESSES]
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
    """Parse a mail server's URL into scheme, host and port.

    Raises InsecureSinkUrl for any other, and for one with more.
    """
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
    """Tell whether every mail server takes the address."""
    return _ADDRESS.fullmatch(text) is not None


def is_printable(text: str) -> bool:
    """Tell whether the text is printable ASCII, as mail servers take it."""
    return _PRINTABLE.fullmatch(text) is not None


def _require(head: Letterhead, username: str, password: str) -> None:
    for param, address in (("sender", head.sender), *(("recipients", each) for each in head.recipients)):
        if not is_address(address):
            raise InvalidSink("it is no e-mail address such as on-call@example.com", param=param)
    if not head.recipients:
        raise InvalidSink("nobody is named to send to", param="recipients")
    if bool(username) != bool(password) or not is_printable(username + password):
        raise InvalidSink("username and password are given together, in printable ASCII", param="password")
