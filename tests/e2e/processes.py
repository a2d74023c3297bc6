"""Real processes, and a shop that counts: everything waits for a condition with a deadline, nothing sleeps."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tests.repo.tree import ROOT, procfile

#: Seconds that anything here may take; a machine under load is slow, a hanging process is slower.
DEADLINE = 60

SHOP_KEY = "whsec_" + "c2hvcC1rZXktb2YtdGhlLWUyZS10ZXN0cy0wMDE="


class Watched:
    """A value that changes under a lock, and that can be waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    @contextmanager
    def changing(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        """Return when the condition holds; AssertionError after the deadline."""
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE), f"not within {DEADLINE} s: {what}"


class Process(Watched):
    """One running process; its output is kept as it comes."""

    def __init__(self, command: str, settings: Path | None = None, *, folder: Path | None = None) -> None:
        super().__init__()
        self.command = command
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._ended = 0
        self._process = subprocess.Popen(
            arguments(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(settings),
            cwd=folder or (settings.parent if settings else ROOT),
        )
        streams = ((self._process.stdout, self.lines), (self._process.stderr, self.errors))
        self._readers = [threading.Thread(target=self._read, args=each, daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self.changing():
                    lines.append(line.rstrip("\n"))
        with self.changing():
            self._ended += 1

    def says(self, text: str) -> None:
        """Return when the process has printed the text; AssertionError when it ends before, or says it too late."""
        self.wait_for(lambda: self._has(text) or self._ended == len(self._readers), f"{self.command} says {text!r}")
        assert self._has(text), f"{self.command} ended: {self.errors[-5:]}"

    def logs(self, event: str, *, times: int = 1) -> None:
        """Return when the process has logged the event so often."""
        self.wait_for(
            lambda: sum(f'"{event}"' in line for line in self.errors) >= times, f"{self.command} logs {event} {times}x"
        )

    def _has(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def ends(self) -> int:
        """The exit code; AssertionError when the process goes on."""
        code = self._process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return code

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        return self.ends()

    def discard(self) -> None:
        """Whatever became of the process, it is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self.ends()


class Shop(Watched):
    """Takes effects by HTTP, checks each with the library of Standard Webhooks, and keeps them by payment."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[tuple[str, str]] = Counter()  #: by payment and effect
        self.refused = 0
        self.is_closed = False  #: whether it takes nothing
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(shop.take(body, dict(self.headers.items())))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/effects"

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        try:
            effect = Webhook(SHOP_KEY).verify(body.decode(), {name.lower(): value for name, value in headers.items()})
        except WebhookVerificationError:
            self.refused += 1
            return 401
        if self.is_closed:
            return 503
        with self.changing():
            self.requests[effect["data"]["payment"], effect["type"]] += 1
        return 204

    def paid(self) -> dict[str, int]:
        """How often each payment was told to be paid."""
        return {payment: times for (payment, effect), times in self.requests.items() if effect == "payment.paid"}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE)
        self._server.server_close()


def receipted(settings: Path, line: str, *, code: int = 0) -> Any:
    """What `receipted LINE --json` answers; AssertionError for another exit code."""
    done = subprocess.run(
        [*arguments(f"receipted {line}"), "--json"],
        capture_output=True,
        text=True,
        env=_environment(settings),
        cwd=settings.parent,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == code, f"receipted {line} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def from_procfile(process: str) -> str:
    """The command of a process, as a deployment would start it."""
    return procfile()[process]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def arguments(command: str) -> list[str]:
    """The command's words, the program being that of this environment."""
    program, *rest = shlex.split(command)
    return [str(Path(sys.executable).with_name(program)), *rest]


def _environment(settings: Path | None) -> dict[str, str]:
    mine = os.environ  # noqa: TID251 - passed on to the processes, without what would be settings of theirs
    theirs = ("RECEIPTED_", "PYTHONUNBUFFERED")  # what is printed must arrive at once without it
    ours = {name: value for name, value in mine.items() if not name.startswith(theirs)}
    return {**ours, "RECEIPTED_CONFIG": str(settings)} if settings else ours
