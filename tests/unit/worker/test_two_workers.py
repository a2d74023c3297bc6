"""Several workers and pollers of several processes on one database file."""

import threading

from storage.database import Database
from storage.inbox import depth
from tests.support.builders import a_message
from worker.inbox_loop import InboxWorker


def test_workers_of_two_processes_decide_everything_once(desk):
    """Threads over two connection pools: every message decided, every payment paid once, every chain whole."""
    refs = [f"pi_{n}" for n in range(6)]
    for status in ("awaiting_payment", "confirmed", "settled", "confirmed"):
        for ref in refs:
            desk.keep(a_message(body=desk.event(status, ref), received_at=desk.clock()))
    desk.set(batch=3)
    other = Database(desk.database.url)
    gate, faults = threading.Barrier(4), []

    def work(opened):
        worker = InboxWorker(opened, desk.world.rules, desk.world.settings, desk.clock)
        gate.wait()
        try:
            while worker.step():
                pass
        except Exception as fault:  # noqa: BLE001 - whatever a worker dies of is what the test is about
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(opened,)) for opened in (desk.database, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()

    assert faults == []
    with desk.database.read() as unit:
        assert depth(unit) == {"decided": 24}
    for ref in refs:
        payment = desk.payment(ref)
        assert payment.state == "settled"
        assert sorted(desk.effects(payment.id)) == ["payment.paid", "payment.settled"]
    assert desk.world.audit().first is None
