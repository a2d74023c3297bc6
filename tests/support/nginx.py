"""A real nginx before a service, with somebody's own configuration of a site."""

import grp
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S, until

#: What Debian's own nginx.conf has around a site, with every path in a folder of the test's.
_AROUND = """
daemon off;
user {user} {group};
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors;
events {{ worker_connections 256; }}
http {{
    gzip on;
    access_log {folder}/access;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def program() -> str:
    """Where nginx is; the test is skipped where there is none."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")  # Debian's is on no user's path
    if found is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    return found


def free_port() -> int:
    """One that nobody listens at, a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def ports_in(site: str) -> list[int]:
    """The loopback ports at which the site listens."""
    return [int(port) for port in re.findall(r"listen 127\.0\.0\.1:(\d+)", site)]


@contextmanager
def serving(site: str, folder: Path) -> Iterator[None]:
    """Within the block nginx answers at every port of the site; then it is stopped."""
    folder.mkdir()
    names = {"user": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, **names))
    said = folder / "said"
    with said.open("w") as out:
        child = subprocess.Popen([program(), "-p", folder, "-c", folder / "nginx.conf"], stdout=out, stderr=out)

    def said_all() -> str:
        errors = folder / "errors"
        return said.read_text() + (errors.read_text() if errors.exists() else "")

    def answers() -> bool:
        assert child.poll() is None, said_all()
        return all(map(is_listening, ports_in(site)))

    try:
        until(answers, DEADLINE_S, said_all)
        yield
    finally:
        child.terminate()
        child.wait(DEADLINE_S)


def is_listening(port: int) -> bool:
    """Somebody listens at the loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
