"""A duty that fails beside the main work: deciding and delivering go on, and it is told which one fails."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.planner import Planner
from poller.polling import PollClaims, Poller
from poller.reconciler import ReconciliationSchedule
from poller.webhook_health import PushMonitor
from receipted.settings.load import Settings
from storage.errors import StorageUnavailable
from tests.support.deliveries import event
from tests.support.serving import Served, eventually, serving, settings
from tests.support.waiting import DEADLINE_S
from worker.housekeeping import Housekeeping
from worker.inbox_loop import InboxWorker

DUTIES = {
    "planner": (Planner, "step"),
    "push": (PushMonitor, "step"),
    "housekeeping": (Housekeeping, "step"),
    "poller": (Poller, "start"),
    "reconcile": (ReconciliationSchedule, "step"),
}
FAULTS: dict[str, Callable[[], Exception]] = {
    "storage": lambda: StorageUnavailable("another holds it"),
    "bug": lambda: RuntimeError("a bug"),
    "overflow": lambda: OverflowError("date value out of range"),
}

delivered: list[str] = []


def take(fulfilment: object) -> None:
    """A shop's handler."""
    delivered.append(str(getattr(fulfilment, "effect", "")))


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    return settings(
        tmp_path,
        tick=0.01,
        handler=f"{__name__}:take",
        sections={"push": {"measure_every_seconds": 10}, "reconciliation": {"every_seconds": 3600}},
    )


@pytest.mark.parametrize("kind", FAULTS)
def test_every_duty_may_fail_for_ever_and_messages_do_not_wait(
    config: Settings, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """All of them fail at every step: what comes is decided and delivered, and every one is named."""

    def failing(*_: object, **__: object) -> int:
        fault = FAULTS[kind]()
        raise fault

    for owner, name in DUTIES.values():
        monkeypatch.setattr(owner, name, failing)
    delivered.clear()
    with serving(config, with_work=True) as served:
        eventually(lambda: failing_loops(served) >= DUTIES.keys())

        assert served.post(event("sg")).status == 200
        eventually(lambda: delivered == ["payment.paid"])

        assert served.rows()[0].status == "decided"
        answer = served.request("GET", "/readyz")
        assert answer.status == 200, "a duty makes nothing unready"
        assert {each["loop"].partition(".")[0] for each in answer.json()["failing"]} == DUTIES.keys()
        assert {each["error"] for each in answer.json()["failing"]} == {
            {"storage": "storage_unavailable", "bug": "RuntimeError", "overflow": "OverflowError"}[kind]
        }
        told = served.request("GET", "/metrics").body.decode()
        for duty in DUTIES:
            cause = "storage" if kind == "storage" else "bug"
            assert f'receipted_loop_failures_total{{loop="{duty}",cause="{cause}"}} 0.0' not in told
        assert not served.service.has_failed


def failing_loops(served: Served) -> set[str]:
    return {trouble.loop.partition(".")[0] for trouble in served.service.pulse.failures_now()}


def test_what_a_failing_loop_is_told_of_ends_when_it_goes_on(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of deciding itself is no end of the process: it is tried again, and over when a step succeeds."""
    real, left = InboxWorker.step, [RuntimeError("a bug")] * 3

    def sometimes(self: InboxWorker, only: list[str] | None = None) -> int:
        if left:
            raise left.pop()
        return real(self, only)

    monkeypatch.setattr(InboxWorker, "step", sometimes)
    delivered.clear()
    with serving(config, with_work=True) as served:
        assert served.post(event("sg")).status == 200
        eventually(lambda: delivered == ["payment.paid"])

        assert not left
        assert "inbox" not in failing_loops(served)
        assert served.service.pulse.failures["inbox", "bug"] == 3
        assert served.request("GET", "/healthz").status == 200


def test_every_duty_may_hang_and_messages_do_not_wait(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Duties that wait for what does not come, each in a thread, leave threads for deciding and delivering."""
    over, hanging = threading.Event(), threading.Semaphore(0)

    def wait(*_: object) -> int:
        hanging.release()
        over.wait(DEADLINE_S)
        return 0

    for owner, name in (
        (Planner, "step"),
        (PushMonitor, "step"),
        (Housekeeping, "_keep_partitions"),
        (PollClaims, "claim"),
        (ReconciliationSchedule, "_next_wanted"),
    ):
        monkeypatch.setattr(owner, name, wait)
    delivered.clear()
    with serving(config, with_work=True) as served:
        try:
            for _ in range(3 + 2 * len(served.service.accounts)):
                assert hanging.acquire(timeout=DEADLINE_S), "every duty has begun"
            assert served.post(event("sg")).status == 200
            eventually(lambda: delivered == ["payment.paid"])
        finally:
            over.set()
