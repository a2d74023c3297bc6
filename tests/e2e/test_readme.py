"""The walk of the README, typed as it stands there: it gives what the README shows."""

import re
import shlex
import subprocess

import httpx2
import pytest

from tests.e2e.processes import DEADLINE, Process, arguments, free_port
from tests.repo.commands_in_docs import blocks
from tests.repo.tree import ROOT

pytestmark = pytest.mark.e2e

README = ROOT / "README.md"


def section() -> str:
    text = README.read_text(encoding="utf-8")
    start = text.index("## One payment, step by step")
    return text[start : text.index("\n## ", start + 1)]


def plain(text: str) -> str:
    """The text without what differs from run to run: ids, digests, instants, sizes, ports."""
    for pattern, word in (
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
        (r"\b[0-9a-f]{12}\b", "ID"),
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", "AT"),
        (r"\d+ (ms|bytes)", "N"),
        (r"127\.0\.0\.1:\d+", "HOST"),
    ):
        text = re.sub(pattern, word, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_the_walk_gives_what_the_readme_shows(tmp_path):
    """Each command of the walk exists, works, and prints what stands below it; only the ports are others."""
    here = {"8900": str(free_port()), "8000": str(free_port())}
    (settings,) = blocks(README, "toml")
    settings = settings.replace("127.0.0.1:8900", f"127.0.0.1:{here['8900']}")
    settings = settings.replace("127.0.0.1:8000", f"127.0.0.1:{here['8000']}")
    settings = settings.replace("development = true", f"development = true\nlisten_port = {here['8000']}")
    (tmp_path / "walk.toml").write_text(settings)
    play, serve, create, show, verify = (
        line.strip() for text in re.findall(r"```shell\n(.*?)```", section(), re.DOTALL) for line in text.splitlines()
    )
    created, told, timeline, proved, tampered = re.findall(r"```text\n(.*?)```", section(), re.DOTALL)

    def run(line: str, *, code: int = 0) -> str:
        done = subprocess.run(
            arguments(line), cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    processes = [Process(f"{play} --port {here['8900']}", folder=tmp_path), Process(serve, folder=tmp_path)]
    try:
        processes[0].says("plays at")
        processes[1].says("listens at")
        shown = run(create)
        assert plain(created) == plain(shown)

        page = re.search(r"^checkout_url +(\S+)$", shown, re.MULTILINE)[1]
        assert httpx2.post(page, data={"action": "pay"}, follow_redirects=False).status_code == 303
        processes[1].says("payment.paid")
        assert plain(told) == plain(processes[1].lines[-1])
        processes[1].logs("effect.delivered")

        payment = shlex.split(shown)[1]
        shown = run(" ".join([*shlex.split(show)[:-1], payment]))
        assert plain(timeline) == plain(shown[shown.index("Timeline") :])
        assert plain(proved) == plain(run(verify))
    finally:
        for process in processes:
            process.discard()

    subprocess.run(
        [arguments("python")[0], "-c", _TAMPER, str(tmp_path / "var" / "walk.db")], check=True, timeout=DEADLINE
    )
    assert plain(tampered) == plain(run(verify, code=4))


_TAMPER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute("UPDATE payment SET amount_minor = 1")
"""
