"""A mail server that speaks real SMTP over real sockets, and fails as a test says."""

import socket
import ssl
import threading
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Self

from tests.support.waiting import DEADLINE_S


@dataclass
class Mode:
    """How the server behaves; each reply may be another than the good one."""

    greeting: str = "220 mail.example ESMTP"
    sender: str = "250 2.1.0 ok"
    recipients: dict[str, str] = field(default_factory=dict)  #: by address; others are taken
    data: str = "354 go on"
    message: str = "250 2.0.0 queued"
    login: str = "235 2.7.0 welcome"
    has_starttls: bool = True
    has_auth: bool = True
    is_silent: bool = False  #: takes connections and says nothing
    drips: bool = False  #: says one byte now and then, and never ends a line
    drops_after_data: bool = False  #: the message is whole, and no answer comes


@dataclass(frozen=True)
class Taken:
    """One mail as it came."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    is_secure: bool
    login: tuple[str, str] | None

    @property
    def mail(self) -> EmailMessage:
        """As a mail program reads it; a CR that ends no line stays one."""
        return message_from_bytes(self.raw.replace(b"\r\n", b"\n"), policy=policy.default)


class SmtpServer:
    """Listens at 127.0.0.1 until it is stopped; `taken` are the mails that it has said it took, or came whole."""

    def __init__(self, certificate: tuple[str, str] | None = None, *, is_implicit: bool = False) -> None:
        self.mode = Mode()
        self.taken: list[Taken] = []
        self.said: list[str] = []  #: every line of every client, without messages
        self.came = threading.Condition()
        self._stopped = threading.Event()
        self._is_implicit = is_implicit
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def wait_for(self, count: int, seconds: float = 20) -> list[Taken]:
        """The mails, once there are so many."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.taken) >= count, seconds), f"{len(self.taken)} of {count} mails"
            return list(self.taken)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(stream)
            thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, stream: socket.socket) -> None:
        with suppress(OSError, _Gone):
            if self._is_implicit and self._tls is not None:
                stream = self._tls.wrap_socket(stream, server_side=True)
                self._open.append(stream)
            conversation = _Conversation(self, stream, is_secure=self._is_implicit)
            try:
                conversation.run()
            finally:
                conversation.close()
        with suppress(OSError):
            stream.close()


class _Gone(Exception):
    """The client has ended the connection, or the server has."""


class _Conversation:
    def __init__(self, server: SmtpServer, stream: socket.socket, *, is_secure: bool) -> None:
        self._server, self._stream, self._is_secure = server, stream, is_secure
        self._reader = stream.makefile("rb")
        self._login: tuple[str, str] | None = None
        self._sender = ""
        self._recipients: list[str] = []

    def close(self) -> None:
        self._reader.close()
        self._stream.close()

    def run(self) -> None:
        mode = self._server.mode
        while mode.is_silent and not self._server._stopped.wait(0.01):
            pass
        while mode.drips and not self._server._stopped.wait(0.02):
            self._stream.sendall(b"2")
        self._say(mode.greeting)
        while True:
            line = self._line()
            self._server.said.append(line)
            verb, _, rest = line.partition(" ")
            if verb.upper() == "QUIT":
                self._say("221 bye")
                return
            self._answer(verb.upper(), rest)

    def _answer(self, verb: str, rest: str) -> None:
        mode = self._server.mode
        if verb in ("EHLO", "HELO"):
            self._say(*self._offers())
        elif verb == "STARTTLS" and self._server._tls is not None and mode.has_starttls:
            self._say("220 go on")
            self._reader.close()
            self._stream = self._server._tls.wrap_socket(self._stream, server_side=True)
            self._server._open.append(self._stream)
            self._reader, self._is_secure = self._stream.makefile("rb"), True
        elif verb == "AUTH" and mode.has_auth:
            self._authenticate(rest)
        elif verb == "MAIL":
            self._sender, self._recipients = _address(rest), []
            self._say(mode.sender)
        elif verb == "RCPT":
            answer = mode.recipients.get(_address(rest), "250 2.1.5 ok")
            if answer.startswith("2"):
                self._recipients.append(_address(rest))
            self._say(answer)
        elif verb == "DATA":
            self._data()
        elif verb in ("RSET", "NOOP"):
            self._say("250 ok")
        else:
            self._say("502 5.5.1 what?")

    def _offers(self) -> list[str]:
        mode, offers = self._server.mode, ["250-mail.example"]
        if mode.has_starttls and self._server._tls is not None and not self._is_secure:
            offers.append("250-STARTTLS")
        if mode.has_auth:
            offers.append("250-AUTH PLAIN")
        return [*offers, "250 8BITMIME"]

    def _authenticate(self, rest: str) -> None:
        _, _, given = rest.partition(" ")
        _, username, password = b64decode(given).decode().split("\0")
        self._login = (username, password)
        self._say(self._server.mode.login)

    def _data(self) -> None:
        mode = self._server.mode
        self._say(mode.data)
        if not mode.data.startswith("3"):
            return
        lines: list[bytes] = []
        while (line := self._reader.readline()) != b".\r\n":
            if not line:
                raise _Gone
            lines.append(line.removeprefix(b"."))
        if mode.message.startswith("2"):
            taken = Taken(self._sender, tuple(self._recipients), b"".join(lines), self._is_secure, self._login)
            with self._server.came:
                self._server.taken.append(taken)
                self._server.came.notify_all()
        if mode.drops_after_data:
            self._stream.shutdown(socket.SHUT_RDWR)
            raise _Gone
        self._say(mode.message)

    def _line(self) -> str:
        line = self._reader.readline()
        if not line:
            raise _Gone
        return line.decode().rstrip("\r\n")

    def _say(self, *replies: str) -> None:
        self._stream.sendall("".join(f"{reply}\r\n" for reply in replies).encode())


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]
