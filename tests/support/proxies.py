"""The proxies that stand before a service, each with connections to it that many clients share."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import nginx
from tests.support.waiting import DEADLINE_S, until

_NGINX = """
upstream service {{ server 127.0.0.1:{to}; keepalive 16; }}
map $http_upgrade $upgraded {{ default upgrade; "" ""; }}
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://service;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        {more}
    }}
}}
"""
_PASSED_ON = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgraded;"

_HAPROXY = """
global
    maxconn 200
defaults
    mode http
    http-reuse always
    timeout connect 10s
    timeout client 30s
    timeout server 30s
listen service
    bind 127.0.0.1:{port}
    server service 127.0.0.1:{to}
"""

_CADDY = """
{{
    admin off
    auto_https off
    storage file_system {folder}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{to}
}}
"""


@contextmanager
def _nginx(folder: Path, to: int, more: str) -> Iterator[int]:
    nginx.program()
    port = nginx.free_port()
    with nginx.serving(_NGINX.format(to=to, port=port, more=more), folder):
        yield port


@contextmanager
def _started(name: str, folder: Path, config: str, arguments: list[str], port: int) -> Iterator[int]:
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    folder.mkdir()
    (folder / "config").write_text(config)
    said = folder / "said"
    with said.open("w") as out:
        environment = {"HOME": str(folder)}
        command = [program, *arguments, str(folder / "config")]
        child = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
    try:
        until(lambda: child.poll() is not None or nginx.is_listening(port), DEADLINE_S, said.read_text)
        assert child.poll() is None, said.read_text()
        yield port
    finally:
        child.terminate()
        child.wait(DEADLINE_S)


@contextmanager
def _haproxy(folder: Path, to: int) -> Iterator[int]:
    port = nginx.free_port()
    with _started("haproxy", folder, _HAPROXY.format(port=port, to=to), ["-db", "-f"], port):
        yield port


@contextmanager
def _caddy(folder: Path, to: int) -> Iterator[int]:
    port = nginx.free_port()
    config = _CADDY.format(port=port, to=to, folder=folder)
    with _started("caddy", folder, config, ["run", "--adapter", "caddyfile", "--config"], port):
        yield port


#: Each takes a folder to be made and the service's port, and yields its own port; skips where it is not installed.
PROXIES: dict[str, Callable[[Path, int], object]] = {
    "nginx": lambda folder, to: _nginx(folder, to, 'proxy_set_header Connection "";'),
    "nginx that passes upgrades on": lambda folder, to: _nginx(folder, to, _PASSED_ON),
    "HAProxy": _haproxy,
    "Caddy": _caddy,
}
