"""The receivers of docs/your-shop.md, each run as it stands there, against real deliveries of a sink."""

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fulfilment.contract import Delivered, Failed, OwedEffect
from fulfilment.http_sink import HttpSink
from service.effect_schema import sample
from storage.ids import new_id
from tests.e2e.processes import SHOP_KEY, free_port
from tests.repo.commands_in_docs import blocks
from tests.repo.tree import ROOT
from tests.support.effect_receiver import OLD_KEY
from tests.support.waiting import DEADLINE_S, until

pytestmark = pytest.mark.e2e

_PAGE = ROOT / "docs" / "your-shop.md"

#: Kept from run to run, and no part of the tree. Their versions are named, so that a run can be had again.
_TOOLS = ROOT / "var" / "shop-tools"
_PYPI = ("flask==3.1.3", "django==5.2.19", "fastapi==0.165.0", "uvicorn==0.54.0", "standardwebhooks==1.1.0")
_NPM = ("express@5.3.0", "standardwebhooks@1.1.1", "better-sqlite3@12.11.1")

#: Seconds for installing.
_TIMEOUT_S = 300

#: By the name of the file in the page: the language of its block, and what starts it.
_RECEIVERS = {
    "fastapi_shop.py": ("python", "-m uvicorn fastapi_shop:app --port {port}"),
    "flask_shop.py": ("python", "-m flask --app flask_shop run --port {port}"),
    "django_shop.py": ("python", "django_shop.py runserver --noreload {port}"),
    "shop.mjs": ("javascript", "shop.mjs"),
}


def _install(home: Path, *commands: tuple[str | Path, ...], mark: str) -> Path:
    """Install once; a tool that cannot be had skips the test, with the reason."""
    done = home / "installed"
    if done.exists() and done.read_text() == mark:
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for command in commands:
        ran = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if ran.returncode:
            pytest.skip(f"the tool cannot be had here: {' '.join(map(str, command))}: {ran.stderr[-2000:]}")
    done.write_text(mark)
    return home


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter with the frameworks, apart from ours."""
    home = _TOOLS / "python"
    program = home / "bin" / "python"
    make = (sys.executable, "-m", "venv", home)
    _install(home, make, (program, "-m", "pip", "install", "--quiet", *_PYPI), mark=repr(_PYPI))
    return program


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """The packages of the JavaScript receiver."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("there is no npm here: apt-get install nodejs npm")
    command = ("npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--silent", *_NPM)
    return _install(_TOOLS / "node", command, mark=repr(_NPM)) / "node_modules"


@pytest.mark.parametrize("name", _RECEIVERS)
def test_a_receiver_of_the_page_takes_an_effect_once_and_refuses_a_forged_one(name, request, tmp_path):
    """An effect that comes twice is one row; a wrong signature is answered 400 and leaves nothing."""
    language, command = _RECEIVERS[name]
    (text,) = (text for text in blocks(_PAGE, language) if name in text.splitlines()[0])
    (tmp_path / name).write_text(text)
    port = free_port()
    if language == "python":
        program = request.getfixturevalue("python")
    else:
        program = shutil.which("node")
        (tmp_path / "node_modules").symlink_to(request.getfixturevalue("node_modules"))
    own = {"SHOP_SECRET": SHOP_KEY, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    environment = {**os.environ, **own}  # noqa: TID251 - of the receiver
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(program), *command.format(port=port).split()],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: _listens(port), DEADLINE_S, (tmp_path / "log").read_text)
        answers = asyncio.run(_deliver(f"http://127.0.0.1:{port}/effects"))
    finally:
        process.kill()
        process.wait()

    told = [replace(answer, answer=b"") for answer in answers]  # what it says besides is its framework's
    assert told == [Delivered(204), Delivered(204), Delivered(204), Failed("answered 400", 400)], (
        tmp_path / "log"
    ).read_text()
    with sqlite3.connect(tmp_path / "shop.db") as database:
        kept = database.execute("SELECT type, reference FROM done ORDER BY type").fetchall()
    assert kept == [("account.silent", None), ("payment.paid", "order-1017")]
    assert (tmp_path / "log").read_text().count("ship order-1017") == 1


async def _deliver(url: str) -> list[Delivered | Failed]:
    """One effect twice, one of an account, and one that is signed with another secret."""
    now = datetime.now(UTC)
    paid, silent, forged = (_owed(effect, now) for effect in ("payment.paid", "account.silent", "payment.paid"))
    found = []
    for owed, key in ((paid, SHOP_KEY), (paid, SHOP_KEY), (silent, SHOP_KEY), (forged, OLD_KEY)):
        sink = HttpSink("shop", url, [key], allow_loopback=True)
        found.append(await sink.deliver(owed, now))
        await sink.aclose()
    return found


def _owed(effect: str, now: datetime) -> OwedEffect:
    effect_id = new_id()
    payload = json.dumps(sample(effect, now, effect_id))
    return OwedEffect(effect_id, effect, None, 1, payload, now)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
