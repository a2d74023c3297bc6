"""Effects over HTTP: how fast a backlog drains to shops that are quick, slow or failing, alone and beside intake."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from storage import outbox, partitions
from storage.ids import effect_id, new_id, webhook_id
from storage.tables import OutboxMessage
from tests.benchmarks import events
from tests.benchmarks.config import settings
from tests.benchmarks.databases import BOTH, SQLITE, Databases, opened, rows, settle
from tests.benchmarks.figures import Bar, Part, Plan, Spread, Table, number, prose
from tests.benchmarks.measuring import Target, rounds
from tests.benchmarks.servers import served, started
from tests.benchmarks.worker import NAMES

ABOUT: Final = prose("""
A backlog of effects, each of a payment of its own, is handed over by `receipted serve` on SQLite and by
`receipted worker` on PostgreSQL, with settings as an operator would have them who says no more, and so by 32 places at
the shop: signed, over kept connections, recorded with each try, and logged.
The shop is a process of its own on the same machine, and answers each request after so many milliseconds.
Of the requests the share that fails is answered 500 by one half, and never by the other: those end after 15 seconds.
*beside intake*: deliveries come in on 64 connections as fast as they are answered, and are decided meanwhile; the
effects of those are handed over as well.
Counted are effects that the shop has taken, from the first of the run on.
""")

_BACKLOG: Final = 20_000
_AT_ONCE: Final = 2_000
_LATENCIES_MS: Final = (1, 20, 200)
_FAILING: Final = (0.0, 0.05)
_CONNECTIONS: Final = 64
_TARGET: Final = 500


@dataclass(frozen=True, slots=True)
class Case:
    """A shop, and what else is done meanwhile."""

    kind: str
    latency_ms: int
    failing: float
    is_beside: bool = False

    @property
    def name(self) -> str:
        """For a row of the table."""
        return f"{NAMES[self.kind]}{', beside intake' if self.is_beside else ''}"


CASES: Final = (
    *(Case(kind, latency, failing) for kind in BOTH for latency in _LATENCIES_MS for failing in _FAILING),
    *(Case(kind, 20, failing, is_beside=True) for kind in BOTH for failing in _FAILING),
)


def measure(databases: Databases, plan: Plan, seconds: float) -> Part:
    """Every case, each from a backlog that does not end."""
    part = Part("delivering", "Effects over HTTP", ABOUT)
    backlogs = {kind: databases.fresh(kind) for kind in BOTH}
    for url in backlogs.values():
        owe(url, _BACKLOG)
    found: dict[Case, list[float]] = {case: [] for case in CASES}
    for _, case in rounds(CASES, plan.rounds, plan.seconds):
        url = databases.copy(backlogs[case.kind])
        found[case].append(_deliver(databases, case, url, seconds, part))
        databases.drop(url)
    for kind in BOTH:
        for failing in _FAILING:
            speed = Spread.of(found[Case(kind, 20, failing)])
            told = f"{NAMES[kind]}, a shop of 20 ms, {failing:.0%} failing: effects/s"
            part.bars.append(Bar(told, speed, _TARGET))
    table = [
        (case.name, f"{case.latency_ms} ms", f"{case.failing:.0%}", str(Spread.of(speeds)))
        for case, speeds in found.items()
    ]
    count = len(next(iter(found.values())))
    head = ("receipted", "shop", "failing", "effects/s")
    part.tables.append(Table(f"Medians of {count} rounds of {number(seconds)} s", head, table))
    return part


def owe(url: str, count: int) -> None:
    """So many effects are due, each of a payment of its own."""
    now = datetime.now(UTC)
    with opened(url) as database:
        partitions.keep_ahead(database, now, settings(url).retention.period())
        for _ in range(0, count, _AT_ONCE):
            with database.write() as unit:
                outbox.owe_all(unit, [_effect(now) for _ in range(_AT_ONCE)])
    settle(url)


def _effect(now: datetime) -> OutboxMessage:
    """A payment is paid, as the worker says it."""
    ref = f"pi_{new_id()}"
    effect = effect_id(events.ACCOUNT, ["payment_intent", ref], "payment.paid", 0)
    data = {"effect_id": effect, "payment": new_id(), "account": events.ACCOUNT, "provider_ref": ref}
    told = {
        **data,
        "kind": "payment_intent",
        "amount_minor": 450,
        "currency": "USD",
        "state": "confirmed",
        "version": 2,
    }
    return outbox.new_message(
        payment_id=data["payment"],
        account=events.ACCOUNT,
        effect="payment.paid",
        sink="shop",
        occurrence=0,
        cause=new_id(),
        payload=json.dumps({"type": "payment.paid", "timestamp": now.isoformat(), "data": told}),
        now=now,
        webhook_id=webhook_id(effect, "shop"),
        number=1,
    )


def _deliver(databases: Databases, case: Case, url: str, seconds: float, part: Part) -> float:
    """Effects a second that the shop took."""
    log = databases.folder / "delivering.log"
    with ExitStack() as stack:
        shop = stack.enter_context(_shop(databases, case))
        modes = ("serve",) if case.kind == SQLITE else (("web", "worker") if case.is_beside else ("worker",))
        started_ = [stack.enter_context(served(mode, url, shop=shop, log=log)) for mode in modes]
        if case.is_beside:
            target = Target(case.name, started_[0])
            intake = threading.Thread(target=target.run, args=(_CONNECTIONS, seconds + 1), daemon=True)
            intake.start()
            stack.callback(intake.join)
        pause = threading.Event()
        while not (before := _delivered(url)):
            pause.wait(0.02)  # of another process, which sets no event here
        began = time.monotonic()
        pause.wait(seconds)
        speed = (_delivered(url) - before) / (time.monotonic() - began)
        if case.is_beside:
            intake.join()
            part.faults += target.faults
    return speed


@contextmanager
def _shop(databases: Databases, case: Case) -> Iterator[str]:
    words = [str(case.latency_ms), str(case.failing)]
    command = [sys.executable, "-m", "tests.benchmarks.shop", *words]
    with started(command, databases.folder / "shop.log") as (_, first):
        yield first.strip()


def _delivered(url: str) -> int:
    found = rows(url, "SELECT count(*) FROM outbox_delivered")
    return int(found[0][0])
