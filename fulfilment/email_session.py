"""One conversation with a mail server: protected before anything is said, and what became of it in one Result."""

import re
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final

import structlog

from fulfilment.contract import Delivered, Failed, Result

log = structlog.get_logger()

#: The only words of a server that are repeated: others might quote what was said to it. Source: RFC 3463.
_ENHANCED: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)", re.ASCII)
_CONNECT_TIMEOUT: Final = 5.0
_Reply = tuple[int, bytes | str]


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed in, and as whom. `tls` is None only where plain text stays on this machine."""

    host: str
    port: int
    is_implicit: bool  #: TLS from the first byte, instead of by STARTTLS
    tls: ssl.SSLContext | None
    username: str = field(repr=False)
    password: str = field(repr=False)
    own_name: str  #: what this service calls itself in EHLO


class Session:
    """Hands over one mail, in a thread; `abort` from another ends it at its next word."""

    def __init__(self, server: Server, timeout: float) -> None:
        self._server = server
        self._timeout = timeout
        self._sockets: list[socket.socket] = []
        self._is_aborted = False

    def abort(self) -> None:
        """Whatever the thread waits for fails at once. Never raises."""
        self._is_aborted = True
        for each in self._sockets:
            with suppress(OSError):  # the base class's: that of TLS would take from the thread what it reads with
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def send(self, addresses: Sequence[str], mail: EmailMessage, sender: str, recipients: Sequence[str]) -> Result:
        """The mail is the server's, or why not. The first of the checked addresses that can be connected to is used."""
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
            client.greeted()
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
                stream = socket.create_connection((address, self._server.port), min(_CONNECT_TIMEOUT, self._timeout))
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

    def __init__(self, stream: socket.socket, server: Server) -> None:
        super().__init__(local_hostname=server.own_name)
        self._host = server.host  # which the certificate of STARTTLS must prove
        self.sock = stream

    def greeted(self) -> None:
        """The server has said that it is there; raises SMTPConnectError where it says anything else."""
        code, words = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, words)

    def __exit__(self, *_: object) -> None:
        """What became of the mail is known: that the server goes without a word changes nothing."""
        with suppress(smtplib.SMTPException, OSError):
            self.docmd("QUIT")
        self.close()


def _numbered(refused: Mapping[str, _Reply], recipients: Sequence[str]) -> list[str]:
    """The refusals by the number of the setting, since an address is a person's."""
    return [f"recipients.{at}: {_code(*refused[each])}" for at, each in enumerate(recipients) if each in refused]


def _code(code: int, words: bytes | str) -> str:
    text = words.decode("ascii", "replace") if isinstance(words, bytes) else words
    enhanced = _ENHANCED.match(text)
    return f"{code} {enhanced[0]}" if enhanced else str(code)
