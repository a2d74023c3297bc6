"""Two workers on PostgreSQL that meet at the same payment at the same instant."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.intake import verified_message
from storage import inbox, outbox, payments
from storage.database import Database
from tests.property.pipeline_voices import VOICES, Telling
from tests.support.databases import PostgreSQL
from tests.support.pipeline_world import SINKS, World
from tests.support.waiting import DEADLINE_S
from worker.inbox_loop import InboxWorker
from worker.payment_session import Session

GENIUS = VOICES["stable_genius.payment_intent"]

#: Payments that they meet at, one after the other.
ROUNDS = 8


@pytest.fixture
def world(template: Path, tmp_path: Path, postgresql: PostgreSQL) -> Iterator[World]:
    made = World(template, tmp_path / "unused.db", database=postgresql.copy())
    made.interleaving = None
    yield made
    made.close()


class Meeting:
    """Both workers wait for each other at the first call of a step of theirs; later calls go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        self._met = threading.Barrier(2)
        self._here = threading.local()
        real = getattr(Session, step)

        def meet(session: Session, *words: Any) -> Any:
            if getattr(self._here, "is_to_wait", False):
                self._here.is_to_wait = False
                self._met.wait(DEADLINE_S)
            return real(session, *words)

        monkeypatch.setattr(Session, step, meet)

    def work(self, worker: InboxWorker) -> int:
        self._here.is_to_wait = True
        return worker.step()


@pytest.mark.parametrize("step", ["busy", "load", "flush"])
def test_two_workers_adopt_a_payment_once(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Each has a webhook about it that the other has not, and neither saw the other's payment."""
    member = world.join("genius", GENIUS.provider)
    world.settings = replace(world.settings, batch=1)
    databases = [Database(world.database.url) for _ in range(2)]
    workers = [InboxWorker(each, world.rules, world.settings, world.clock) for each in databases]
    meeting = Meeting(monkeypatch, step)
    with ThreadPoolExecutor(2) as threads, capture_logs() as logs:
        for number in range(ROUNDS):
            ref = f"pi_{number}"
            for _ in workers:
                world.clock.advance(1)
                told = Telling(ref, ref, "confirmed", 450, world.clock(), f"evt_{number}_{world.clock()}")
                body = GENIUS.webhook(told)
                assert body is not None
                delivery = GENIUS.delivery(body, world.clock())
                world.record(verified_message(member.receiving, None, None, delivery, world.clock()))
            assert sum(threads.map(meeting.work, workers)) >= 1
            world.settle()
    for each in databases:
        each.close()

    with world.database.read() as unit:
        messages = inbox.find(unit, account="genius", limit=100)
        found = payments.find(unit, account="genius", limit=100)
        owed = outbox.find(unit, limit=100)
    assert [message.decision for message in messages].count("advanced") == ROUNDS
    assert [message.decision for message in messages].count("unchanged") == ROUNDS
    assert sorted(payment.provider_ref or "" for payment in found) == sorted(f"pi_{n}" for n in range(ROUNDS))
    assert sorted((each.payment_id, each.effect, each.sink) for each in owed) == sorted(
        (payment.id, "payment.paid", sink) for payment in found for sink in SINKS
    )
    assert [log for log in logs if log["event"] in ("message.failed", "message.dead")] == []
    assert world.audit().first is None
