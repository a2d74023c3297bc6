"""The way in and the worker at once: deliveries per second, and how long until a delivery's transition is committed."""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from storage import batches, payment_polls
from storage.database import build_record
from storage.ids import new_id
from storage.inbox import WHOLE
from storage.schema import metadata
from storage.tables import Payment
from tests.benchmarks import events
from tests.benchmarks.databases import POSTGRESQL, SQLITE, Databases, count, opened, settle
from tests.benchmarks.figures import Bar, Part, Plan, Spread, Table, number, prose
from tests.benchmarks.measuring import Run, Target, rounds
from tests.benchmarks.servers import served

ABOUT: Final = prose("""
Deliveries come in and are applied at the same time: on SQLite by the two processes of `receipted serve`, on PostgreSQL
by `receipted web` and `receipted worker`.
Everything of the two parts above is included, and effects are handed to a function in the process.
Each payment is known before its provider says the first word of it, as one that is created through the API, so that
nobody is asked about it meanwhile.
The lag is from `received_at` to `decided_at` of each message: the delivery is verified, and the worker has decided, in
the transaction that is committed next.
What is still undecided when the patience ends counts as decided then.
""")

_CONNECTIONS: Final = 64
_RATE: Final = 4000.0
#: Deliveries made ahead for a second where as many are taken as are answered.
_MOST: Final = 15_000
#: Payments that are made known in one commit.
_AT_ONCE: Final = 5_000
#: Seconds that the worker has for what is left when deliveries end.
_PATIENCE: Final = 4.0
_TARGET: Final = 12_000
_LAG_MS: Final = 25

_inbox = WHOLE
_queue = metadata.tables["inbox_queue"]


@dataclass(frozen=True, slots=True)
class Lag:
    """Milliseconds."""

    p50: float
    p99: float
    undecided: int


@dataclass
class System:
    """A way in with a worker behind it."""

    name: str
    url: str
    target: Target
    closed: list[tuple[Run, Lag]] = field(default_factory=list)
    paced: list[tuple[Run, Lag]] = field(default_factory=list)

    def run(self, seconds: float, rate: float) -> None:
        """Deliver for so long; then wait until everything is decided, within bounds, and read the lags."""
        number = int((rate or _MOST) * seconds * 1.1)
        seed = new_id()
        self._know(events.payments(number, seed))
        began = datetime.now(UTC)
        run = self.target.run(_CONNECTIONS, seconds, rate=rate, number=number, seed=seed)
        give_up, pause = time.monotonic() + _PATIENCE, threading.Event()
        while self._undecided() and time.monotonic() < give_up:
            pause.wait(0.1)  # of another process, which sets no event here
        (self.paced if rate else self.closed).append((run, self._lag(began)))

    def _know(self, names: Sequence[str]) -> None:
        """The payments are kept, and nothing is known of them but their names."""
        now = datetime.now(UTC)
        common = {"account": events.ACCOUNT, "kind": "payment_intent", "phase": "open", "facts": {}, "head_hash": ""}
        common |= dict.fromkeys(("created_at", "changed_at"), now) | dict.fromkeys(("version", "reviews"), 0)
        with opened(self.url) as database:
            for start in range(0, len(names), _AT_ONCE):
                part = names[start : start + _AT_ONCE]
                known = [build_record(Payment, {**common, "id": new_id(), "provider_ref": name}) for name in part]
                polls = [payment_polls.begin(payment.id, payment.account, now) for payment in known]
                for poll in polls:
                    poll.next_poll_at = now + timedelta(hours=1)
                with database.write() as unit:
                    batches.add(unit, known)
                    batches.add_polls(unit, polls)
        settle(self.url)

    def _undecided(self) -> int:
        with opened(self.url) as database, database.read() as unit:
            pending = select(func.count()).select_from(_queue).where(_queue.c.status == "pending")
            return int(unit.execute(pending).scalar_one())

    def _lag(self, began: datetime) -> Lag:
        with opened(self.url) as database, database.read() as unit:
            query = select(_inbox.c.received_at, _inbox.c.decided_at).where(_inbox.c.received_at >= began)
            found: Sequence[Any] = unit.execute(query).all()
        now = datetime.now(UTC)
        lags = sorted(((decided or now) - received).total_seconds() * 1000 for received, decided in found)
        undecided = sum(decided is None for _, decided in found)
        return Lag(lags[len(lags) // 2], lags[int(len(lags) * 0.99)], undecided)


def measure(databases: Databases, plan: Plan, seconds: float) -> Part:
    """Both systems, as fast as they can and at a fixed rate."""
    part = Part("together", "The way in and the worker together", ABOUT)
    with ExitStack() as stack:
        systems = []
        for name, kind, modes in (
            ("serve, SQLite", SQLITE, ("serve",)),
            ("web and worker, PostgreSQL", POSTGRESQL, ("web", "worker")),
        ):
            url = databases.fresh(kind)
            started = [stack.enter_context(served(mode, url, log=databases.folder / f"{mode}.log")) for mode in modes]
            systems.append(System(name, url, Target(name, started[0])))
            systems[-1].target.run(_CONNECTIONS, 0.3, warm_up=200)
        for _, (system, rate) in rounds(
            [(system, rate) for rate in (0.0, _RATE) for system in systems], plan.rounds, plan.seconds
        ):
            system.run(seconds, rate)
        for system in systems:
            part.faults += system.target.faults
            if (kept := count(system.url, "inbox_message")) != system.target.acknowledged:
                part.faults.append(f"{system.name}: {system.target.acknowledged} acknowledged, {kept} kept")
    for system in systems:
        speed = Spread.of(run.per_second for run, _ in system.closed)
        part.bars.append(Bar(f"{system.name}, {_CONNECTIONS} connections: deliveries/s", speed, _TARGET))
        for about, found in ((f"{_CONNECTIONS} connections", system.closed), (f"{number(_RATE)}/s", system.paced)):
            p99 = Spread.of(lag.p99 for _, lag in found)
            part.bars.append(Bar(f"{system.name}, {about}: p99 of the lag", p99, _LAG_MS, is_ceiling=True, unit=" ms"))
    part.tables.append(_table(systems, f"Medians of {len(systems[0].closed)} rounds of {seconds:g} s"))
    return part


def _table(systems: Sequence[System], title: str) -> Table:
    rows = []
    for system in systems:
        for offered, found in (("as fast as answered", system.closed), (f"{number(_RATE)}/s", system.paced)):
            rows.append(
                (
                    system.name,
                    offered,
                    str(Spread.of(run.per_second for run, _ in found)),
                    number(Spread.of(run.p99_ms for run, _ in found).median),
                    str(Spread.of(lag.p50 for _, lag in found)),
                    str(Spread.of(lag.p99 for _, lag in found)),
                    f"{max(lag.undecided for _, lag in found):,}",
                )
            )
    head = ("system", "offered", "deliveries/s", "answer p99 ms", "lag p50 ms", "lag p99 ms", "undecided at most")
    return Table(title, head, rows)
