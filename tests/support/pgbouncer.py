"""A real pgbouncer before a real server; in transaction mode the next transaction may be in another session."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import DEADLINE, Server, as_other_user, free_port
from tests.support.waiting import until

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {sessions}
"""

#: Since 1.21 it can keep statements for its clients, and since 1.24 it does; an older one refuses the word.
_FORGETFUL = "max_prepared_statements = 0\n"


@contextlib.contextmanager
def pooling(server: Server, *, sessions: int = 6, mode: str = "transaction") -> Iterator[int]:
    """The port of a pooler that keeps no statement for anybody; skips the test where there is no pgbouncer."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    folder = Path(tempfile.mkdtemp(prefix="receipted-pgbouncer-"))
    folder.chmod(0o755)
    port = free_port()
    settings, log = folder / "pgbouncer.ini", folder / "log"
    version = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True, timeout=DEADLINE
    ).stdout
    is_new = tuple(map(int, version.split()[1].split(".")[:2])) >= (1, 21)
    written = _SETTINGS.format(server=server.port, port=port, sessions=sessions, mode=mode)
    settings.write_text(written + _FORGETFUL if is_new else written)
    with log.open("wb") as output:
        process = subprocess.Popen([program, settings], stdout=output, stderr=output, **as_other_user())

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        return b"process up" in log.read_bytes()

    try:
        until(is_up, DEADLINE, log.read_text)
        yield port
    finally:
        process.kill()
        process.wait(DEADLINE)
        shutil.rmtree(folder)
