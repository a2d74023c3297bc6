"""Broker processes of a test's own, on a free port with a store of its own, that may be killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Server(ABC):
    """One process; `start` returns when it listens."""

    programs: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        found = next(filter(None, map(shutil.which, self.programs)), None)
        if found is None:
            pytest.skip(f"{self.programs[0]} is not installed")
        self.program: str = found
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    def start(self, seconds: float = 60) -> None:
        self._process = subprocess.Popen(
            self.command(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,  # so that all that it starts can be killed with it
        )
        deadline, pause = time.monotonic() + seconds, threading.Event()
        while not self._is_listening():
            assert self._process.poll() is None, f"{self.program} ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"{self.program} does not listen"
            pause.wait(0.02)  # nothing sets it: another process's state sets no event here

    def _is_listening(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """SIGKILL: no word of goodbye, nothing flushed."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_S)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


class NatsServer(Server):
    """JetStream on disk."""

    programs = ("nats-server",)
    options = ""

    def command(self) -> list[str]:
        config = self.folder / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self.folder}/store" }}\n{self.options}\n'
        )
        return [self.program, "-c", str(config)]


class RedisServer(Server):
    """Each write is on the disk before it is answered."""

    programs = ("redis-server",)
    options: tuple[str, ...] = ()

    def command(self) -> list[str]:
        plain = () if "--port" in self.options else ("--port", str(self.port))
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        return [self.program, "--bind", "127.0.0.1", *plain, "--dir", str(self.folder), *durable, *self.options]


class RabbitServer(Server):
    """A node of its own; the name server of Erlang is the machine's, and is left alone."""

    #: The first as Debian has it: the one on the path would become another user.
    programs = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._node = f"receipted-{self.port}@localhost"
        self._distribution = free_port()
        (folder / "plugins").write_text("[].\n")

    def command(self) -> list[str]:
        variables = {
            "HOME": self.folder,
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_DIST_PORT": self._distribution,
            "RABBITMQ_MNESIA_BASE": self.folder / "store",
            "RABBITMQ_LOG_BASE": self.folder / "log",
            "RABBITMQ_PID_FILE": self.folder / "pid",
            "RABBITMQ_CONFIG_FILE": self.folder / "none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "plugins",
        }
        return ["env", *(f"{name}={value}" for name, value in variables.items()), self.program]
