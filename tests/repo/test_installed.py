"""The wheel alone, with what constraints-runtime.txt names and nothing else, is a service that works."""

import importlib.metadata
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx2
import pytest

from tests.e2e.processes import free_port
from tests.repo.tree import ROOT
from tests.support.waiting import DEADLINE_S, until

RUNTIME = ROOT / "constraints-runtime.txt"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The command of an environment with the wheel unpacked, and links to the packages of run time alone."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", folder, ROOT]
    subprocess.run(build, check=True, timeout=DEADLINE_S)
    venv.create(folder / "venv", with_pip=False)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    for package in re.findall(r"^([\w.-]+)==", RUNTIME.read_text(), re.MULTILINE):
        _link(package, packages)
    (wheel,) = folder.glob("receipted-*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(packages)
    return [
        str(folder / "venv" / "bin" / "python"),
        "-I",
        "-c",
        "from receipted.cli.main import main; main()",
    ]


def _link(package, target):
    """Link what the distribution has at the top of site-packages; markers may leave one out on this machine."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return
    for top in {Path(file).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        place = target / top
        if not place.exists():
            place.symlink_to(Path(str(found.locate_file(top))))


def typed(program, folder, *words):
    done = subprocess.run(
        [*program, *words], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_none_of_the_developers_packages(program, tmp_path):
    code = "import importlib.util as u; print([n for n in ('pytest', 'hatchling', 'pip', 'yaml') if u.find_spec(n)])"

    assert typed(program[:2], tmp_path, "-c", code) == "[]\n"


def test_the_first_steps_work(program, tmp_path):
    """Settings, schema, pages with their styles, metrics, proof: all that the wheel has to bring along."""
    port = free_port()
    here = ("--sandbox", "http://127.0.0.1:9", "--public-url", f"http://127.0.0.1:{port}")
    assert typed(program, tmp_path, "--version") == f"receipted {importlib.metadata.version('receipted')}\n"
    typed(program, tmp_path, "init", "--provider", "banked", *here, "--shop-url", "http://127.0.0.1:9/")
    typed(program, tmp_path, "config", "check")
    with subprocess.Popen(
        [*program, "serve", "--migrate"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as web:
                until(lambda: _status(web, "/readyz") == 200, DEADLINE_S, lambda: "it is ready")
                page = web.get("/console/")
                styles = re.findall(r'href="(/console/[^"]+\.css[^"]*)"', page.text)
                assert (page.status_code, "Log in" in page.text) == (200, True)
                assert [web.get(style).status_code for style in styles] == [200] * len(styles) != []
                assert web.get("/openapi.json").status_code == 200
        finally:
            process.terminate()
    assert process.returncode == 0
    assert "everything holds" in typed(program, tmp_path, "audit", "verify")


def _status(web, path):
    try:
        return web.get(path).status_code
    except httpx2.TransportError:
        return None  # it does not listen yet
