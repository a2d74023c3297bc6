"""The README and its walk, typed as they stand there: they give what is shown."""

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
WALK = ROOT / "docs" / "walkthrough.md"


def section(path, title: str) -> str:
    text = path.read_text(encoding="utf-8")
    start = text.index(f"## {title}")
    return f"{text}\n## "[start : f"{text}\n## ".index("\n## ", start + 1)]


def typed(text: str) -> list[str]:
    """The commands of the text, in their order."""
    return [line.strip() for block in re.findall(r"```shell\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


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


def test_the_walk_gives_what_is_shown(tmp_path):
    """Each command of the walk exists, works, and prints what stands below it; only the ports are others."""
    here = {"8900": str(free_port()), "8000": str(free_port())}
    (settings,) = blocks(WALK, "toml")
    settings = settings.replace("127.0.0.1:8900", f"127.0.0.1:{here['8900']}")
    settings = settings.replace("127.0.0.1:8000", f"127.0.0.1:{here['8000']}")
    settings = settings.replace("development = true", f"development = true\nlisten_port = {here['8000']}")
    (tmp_path / "walk.toml").write_text(settings)
    walk = section(WALK, "One payment, step by step")
    play, serve, create, show, verify = typed(walk)
    created, told, timeline, proved, tampered = re.findall(r"```text\n(.*?)```", walk, re.DOTALL)

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


def test_the_first_webhook_of_the_readme_reaches_the_shop(tmp_path):
    """Each step works as it stands there, and the shop prints what the README says; only the ports are others."""
    ports = {port: str(free_port()) for port in ("8900", "8000", "9000")}
    text = section(README, "Your first webhook")
    (shop,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    play, init, serve, create, add, *look = typed(text)
    for old, new in ports.items():
        init, shop = init.replace(f":{old}", f":{new}"), shop.replace(f", {old})", f", {new})")
    (tmp_path / "shop.py").write_text(shop)

    def run(line: str, answer: str = "") -> str:
        done = subprocess.run(
            arguments(line),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            input=answer or None,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    processes = [Process(f"{play} --port {ports['8900']}", folder=tmp_path)]
    try:
        processes[0].says("plays at")
        written = run(f"{init} --public-url http://127.0.0.1:{ports['8000']}")
        assert written.splitlines()[-1].split(maxsplit=1) == ["next", serve]
        processes += [Process("python shop.py", folder=tmp_path), Process(serve, folder=tmp_path)]
        processes[2].says("listens at")

        page = re.search(r"^checkout_url +(\S+)$", run(create), re.MULTILINE)[1]
        assert httpx2.post(page, data={"action": "pay"}, follow_redirects=False).status_code == 303
        (wanted,) = re.findall(r"your shop prints `(.+)`", text)
        processes[1].says(wanted)
        processes[2].logs("effect.delivered")

        run(f"{add} --password-stdin", "a password that is long enough\n")
        listed, proved = map(run, look)
        assert "order-17" in listed
        assert "everything holds" in proved
    finally:
        for process in processes:
            process.discard()


_TAMPER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute("UPDATE payment SET amount_minor = 1")
"""
