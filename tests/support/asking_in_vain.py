"""A process of its own that asks a provider many times under the garbage policy of the service, and tells its memory.

`python -m tests.support.asking_in_vain SETTINGS ROUNDS` asks about eight payments at once in so many rounds, and prints
how many bytes it held before the first one, at most, and afterwards.
"""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

import structlog

from receipted.runtime import reduce_garbage_collection
from receipted.settings import load
from receipted.wiring import Service
from storage import payment_polls, payments
from storage.ids import new_id
from storage.payment_polls import PolledPayment
from storage.tables import Payment
from tests.support.keeping import keep

AT_ONCE = 8
WARM_UP_ROUNDS = 3


def resident_bytes() -> int:
    """What the process holds of memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def ask(service: Service, rounds: int) -> dict[str, int]:
    now = service.clock()
    with service.database.write() as unit:
        for number in range(AT_ONCE):
            name = f"p-{number}"
            columns = {"account": "payfield", "kind": "payin", "phase": "open", "provider_ref": name, "reference": name}
            times = {"created_at": now, "changed_at": now}
            keep(unit, Payment(id=new_id(), amount_minor=450, currency="BDT", **columns, **times))
    with service.database.read() as unit:
        found = [PolledPayment(each, payment_polls.get(unit, each.id)) for each in payments.find(unit)]
    reduce_garbage_collection()
    async with service.clients() as clients:
        poller = service.poller(clients)
        for _ in range(WARM_UP_ROUNDS):
            await asyncio.gather(*map(poller.ask, found))
        before = most = resident_bytes()
        for _ in range(rounds):
            await asyncio.gather(*map(poller.ask, found))
            most = max(most, resident_bytes())
    return {"before": before, "most": most, "after": resident_bytes()}


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    service = Service(load.load(Path(sys.argv[1]), {}))
    try:
        print(json.dumps(asyncio.run(ask(service, int(sys.argv[2])))))
    finally:
        service.close()


if __name__ == "__main__":
    main()
