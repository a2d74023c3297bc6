"""Others that receive webhooks, where they are installed: dj-stripe, and webhook by adnanh."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from tests.benchmarks import events, peer_djstripe
from tests.benchmarks.config import ROOT
from tests.benchmarks.databases import POSTGRESQL, Databases, count
from tests.benchmarks.figures import Bar, Part, Plan, Spread, Table, number, prose, ratios
from tests.benchmarks.intake import OURS
from tests.benchmarks.measuring import Run, Target, rounds
from tests.benchmarks.servers import Served, served

ABOUT: Final = prose("""
*dj-stripe* has its default set-up: two synchronous workers of gunicorn, PostgreSQL with the same settings, signatures
verified, and each event kept and processed within the request; it is never made to call Stripe.
*webhook* checks an HMAC over the body and starts `/bin/true` after its answer; it stores nothing.
Each run ends when its server rests: what it does after its answers is not done in the next one's time, and counts for
its own, in what is done a second.
The ratios are of what is done a second.
Both get unique signed deliveries of the same sizes from the same load generator.
A peer that is not installed is not measured: `BENCH_PEERS` names a virtual environment with dj-stripe, gunicorn and
psycopg, and `webhook` is looked for on the path.
""")

_CONNECTIONS: Final = 64
_READY_SECONDS: Final = 30.0
#: Seconds without use of the processor after which a server rests, and seconds that it has for coming to that.
_REST_S: Final = 0.3
_LEFTOVER_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Peer:
    """How another one is started, and what of it is promised."""

    name: str
    dialect: str
    path: str
    times: float  #: our deliveries per second are at least so many times its own
    likely: float  #: deliveries a second, before the first is measured
    table: str  #: where it keeps deliveries; empty where it keeps none


DJSTRIPE: Final = Peer("dj-stripe", "stripe", peer_djstripe.PATH, 80, 600, "djstripe_event")
WEBHOOK: Final = Peer("webhook", "body", "/hooks/bench", 2, 15_000, "")


@dataclass(frozen=True, slots=True)
class Finished:
    """A run with what its server did after the last answer."""

    run: Run
    done_per_second: float  #: deliveries, until the server rests


def measure(databases: Databases, plan: Plan, seconds: float, environment: str | None) -> Part:
    """What is installed, beside the application on PostgreSQL."""
    part = Part("peers", "Beside others", ABOUT)
    python = Path(environment or "/nowhere", "bin", "python")
    starts: list[tuple[Peer, Callable[[str, Path], object] | None]] = [
        (DJSTRIPE, (lambda url, log: _djstripe(python, url, log)) if _has_djstripe(python) else None),
        (WEBHOOK, _webhook if shutil.which("webhook") else None),
    ]
    runs: dict[str, list[Finished]] = {}
    with ExitStack() as stack:
        url = databases.fresh(POSTGRESQL)
        ours = Target(OURS[POSTGRESQL], stack.enter_context(served("web", url, log=databases.folder / "ours.log")))
        ours.run(_CONNECTIONS, 0.3, warm_up=200)
        targets = [(ours, "inbox_message", url)]
        for peer, start in starts:
            if start is None:
                continue
            its_url = databases.empty(POSTGRESQL)
            server = stack.enter_context(start(its_url, databases.folder / "peer.log"))  # type: ignore[arg-type]
            target = Target(peer.name, server, peer.path, peer.dialect)
            target.run(_CONNECTIONS, 0.5, most=peer.likely, warm_up=64)
            _rest(target.served)
            targets.append((target, peer.table, its_url))
        if len(targets) > 1:
            for _, (target, _, _) in rounds(targets, plan.rounds, plan.seconds):
                run = target.run(_CONNECTIONS, seconds)
                took = run.acknowledged / max(run.per_second, 1e-9) + _rest(target.served)
                runs.setdefault(target.name, []).append(Finished(run, run.acknowledged / max(took, 1e-9)))
        for target, table, at in targets:
            part.faults += target.faults
            if table and (kept := count(at, table)) != target.acknowledged:
                part.faults.append(f"{target.name}: {target.acknowledged} acknowledged, {kept} kept")
    for peer, start in starts:
        promise = f"{OURS[POSTGRESQL]}, {_CONNECTIONS} connections: deliveries/s of {peer.name}'s"
        part.bars.append(Bar(promise, _ratio(runs, peer.name) if start else None, peer.times))
    made = max(map(len, runs.values()), default=0)
    names = (OURS[POSTGRESQL], *(peer.name for peer, _ in starts))
    part.tables.append(
        Table(
            f"{_CONNECTIONS} connections, medians of {made} rounds",
            _HEAD,
            [_row(name, runs.get(name)) for name in names],
        )
    )
    return part


_HEAD: Final = ("server", "answered/s", "done/s", "p50 ms", "p99 ms")


def _rest(server: Served) -> float:
    """Return once the server rests: how many seconds it has worked on since its last answer."""
    began = worked_at = time.monotonic()
    used, pause = server.cpu(), threading.Event()
    while (now := time.monotonic()) - worked_at < _REST_S:
        if now - began > _LEFTOVER_TIMEOUT_S:
            raise RuntimeError(f"processes {server.processes} do not come to rest")
        pause.wait(_REST_S / 10)  # of other processes, which set no event here
        if (uses := server.cpu()) > used:
            used, worked_at = uses, time.monotonic()
    return worked_at - began


def _ratio(runs: dict[str, list[Finished]], name: str) -> Spread:
    return ratios(
        [each.done_per_second for each in runs[OURS[POSTGRESQL]]], [each.done_per_second for each in runs[name]]
    )


def _row(name: str, found: list[Finished] | None) -> tuple[str, ...]:
    if found is None:
        return (name, "not measured" if name == OURS[POSTGRESQL] else "not installed", "-", "-", "-")
    answered = Spread.of(each.run.per_second for each in found)
    done = Spread.of(each.done_per_second for each in found)
    medians = (Spread.of(getattr(each.run, figure) for each in found).median for figure in ("p50_ms", "p99_ms"))
    return (name, str(answered), str(done), *map(number, medians))


def _has_djstripe(python: Path) -> bool:
    return (
        python.exists()
        and subprocess.run(
            [python, "-c", "import djstripe, gunicorn, psycopg"], check=False, capture_output=True
        ).returncode
        == 0
    )


@contextmanager
def _djstripe(python: Path, url: str, log: Path) -> Iterator[Served]:
    """Two synchronous workers of gunicorn, its default kind."""
    parts = make_url(url)
    arguments = (parts.database, parts.query.get("host") or parts.host, parts.username, events.KEY)
    with log.open("ab") as errors:
        module = "tests.benchmarks.peer_djstripe"
        subprocess.run([python, "-W", "ignore", "-m", module, *arguments], check=True, stderr=errors, cwd=ROOT)
    port = _free_port()
    said = ", ".join(repr(str(argument)) for argument in arguments)
    command = [str(python), "-W", "ignore", "-m", "gunicorn", "--no-control-socket"]
    command += ["-w", "2", "-b", f"127.0.0.1:{port}", f"{module}:make({said})"]
    with _running(command, port, log) as server:
        yield server


@contextmanager
def _webhook(_url: str, log: Path) -> Iterator[Served]:
    """One hook with a digest over the body."""
    rule = {
        "type": "payload-hmac-sha256",
        "secret": events.KEY,
        "parameter": {"source": "header", "name": "X-Signature"},
    }
    hook = {"id": "bench", "execute-command": "/bin/true", "http-methods": ["POST"], "trigger-rule": {"match": rule}}
    hooks = log.with_name("hooks.json")
    hooks.write_text(json.dumps([{**hook, "trigger-rule-mismatch-http-response-code": 401}]))
    port = _free_port()
    with _running(["webhook", "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)], port, log) as server:
        yield server


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[Served]:
    with log.open("ab") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, cwd=ROOT)
    try:
        _until_it_answers(process, port, log)
        yield Served(port, [process.pid])
    finally:
        process.terminate()
        process.wait(20)


def _until_it_answers(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    give_up, pause = time.monotonic() + _READY_SECONDS, threading.Event()
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as probe:
            probe.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if probe.recv(100):
                return
        pause.wait(0.1)  # of another process, which sets no event here
    raise RuntimeError(f"{process.args!r} did not answer:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
