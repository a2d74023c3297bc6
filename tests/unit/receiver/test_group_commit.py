import asyncio
from collections.abc import Sequence

import pytest

from receiver import group_commit as writing
from receiver.errors import IntakeFull
from receiver.group_commit import GroupWriter
from storage.errors import SchemaOutdated, StorageUnavailable
from storage.inbox import Recorded
from storage.intake import Arrival, arrived
from tests.support.clock import START
from tests.support.waiting import DEADLINE_S


def an_arrival(body: bytes = b"{}") -> Arrival:
    return arrived(account="acme", source="webhook", delivery_key=body.hex(), body=body, received_at=START)


class Gate:
    """A database whose answers are let go one by one; what is asked of it is known."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.batches: list[list[Arrival]] = []
        self.checks = 0
        self.opened = asyncio.Event()
        self.fault: Exception | None = None
        self.is_closed = False

    async def write(self, batch: Sequence[Arrival]) -> list[Recorded]:
        self.batches.append(list(batch))
        await self.opened.wait()
        if self.fault is not None:
            raise self.fault
        if any(arrival.body == b"poison" for arrival in batch):
            raise ValueError("poison")
        return [Recorded(arrival.id) for arrival in batch]

    async def check(self) -> None:
        self.checks += 1

    async def close(self) -> None:
        self.is_closed = True


async def begun(gate: Gate, number: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while len(gate.batches) < number:  # noqa: ASYNC110 - every turn of the loop may be the one
            await asyncio.sleep(0)


def a_writer(gate: Gate, queue: int = 1000) -> GroupWriter:
    return GroupWriter(gate, queue=queue, on_recorded=lambda: None)


def test_what_comes_together_is_one_batch_and_what_comes_meanwhile_the_next():
    """Nobody waits for company: the first batch is begun at once, with those of the same turn of the loop."""

    async def main():
        gate = Gate()
        writer = a_writer(gate)
        tasks = [asyncio.create_task(writer.record(an_arrival(b"%d" % n))) for n in range(3)]
        await begun(gate, 1)
        tasks += [asyncio.create_task(writer.record(an_arrival(b"%d" % n))) for n in range(3, 200)]
        await asyncio.sleep(0.01)
        assert [len(batch) for batch in gate.batches] == [3]
        gate.opened.set()
        recorded = await asyncio.gather(*tasks)
        await writer.close()
        assert [len(batch) for batch in gate.batches] == [3, 197]
        assert [r.id for r in recorded] == [a.id for batch in gate.batches for a in batch]
        assert gate.is_closed

    asyncio.run(main())


def test_a_crowd_is_committed_beside_what_is_under_way_where_the_store_has_two_lanes():
    """A few wait for the first batch; many have a second one."""

    async def main():
        gate = Gate(lanes=2)
        writer = a_writer(gate)
        tasks = [asyncio.create_task(writer.record(an_arrival(b"first")))]
        await begun(gate, 1)
        tasks += [asyncio.create_task(writer.record(an_arrival(b"%d" % n))) for n in range(20)]
        await asyncio.sleep(0.01)
        assert len(gate.batches) == 1
        tasks += [asyncio.create_task(writer.record(an_arrival(b"%d" % n))) for n in range(20, 80)]
        await begun(gate, 2)
        assert len(gate.batches[1]) == 80
        gate.opened.set()
        await asyncio.gather(*tasks)
        await writer.close()

    asyncio.run(main())


def test_whoever_waits_too_long_is_told_whatever_the_database_does(monkeypatch):
    """Both those under way and those behind; the writer goes on as soon as the database does."""
    monkeypatch.setattr(writing, "_COMMIT_TIMEOUT_S", 0.05)

    async def main():
        gate = Gate()
        writer = a_writer(gate)
        tasks = [asyncio.create_task(writer.record(an_arrival(b"under way")))]
        await begun(gate, 1)
        tasks += [asyncio.create_task(writer.record(an_arrival(b"behind %d" % n))) for n in range(3)]
        async with asyncio.timeout(DEADLINE_S):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in ended] == [StorageUnavailable] * 4
        gate.opened.set()
        later = an_arrival(b"later")
        assert await writer.record(later) == Recorded(later.id)
        await writer.close()
        assert [arrival.body for batch in gate.batches for arrival in batch] == [b"under way", b"later"]

    asyncio.run(main())


def test_the_database_has_the_next_batch_before_the_answers_to_the_last_are_written():
    """It would rest meanwhile: writing the answers takes about as long as a commit."""

    class Answered:
        def settle(self, _outcome: object) -> None:
            begun_at_the_answer.append(len(gate.batches))

    gate, begun_at_the_answer = Gate(), []

    async def main():
        writer = a_writer(gate)
        writer.submit(an_arrival(b"first"), Answered())
        await begun(gate, 1)
        writer.submit(an_arrival(b"second"), Answered())
        gate.opened.set()
        await writer.close()

    asyncio.run(main())
    assert begun_at_the_answer == [2, 2]


def test_a_full_queue_refuses_and_keeps_what_it_has():
    """The bound is on those who wait behind the batch under way."""

    async def main():
        gate = Gate()
        writer = a_writer(gate, queue=2)
        tasks = [asyncio.create_task(writer.record(an_arrival(b"first")))]
        await begun(gate, 1)
        tasks += [asyncio.create_task(writer.record(an_arrival(b"%d" % n))) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(IntakeFull):
            await writer.record(an_arrival(b"one too many"))
        gate.opened.set()
        assert len(await asyncio.gather(*tasks)) == 3
        await writer.close()

    asyncio.run(main())


def test_poison_is_found_by_halves_and_its_neighbours_are_recorded():
    """Whoever sent it is told so; the others are committed in parts."""

    async def main():
        gate = Gate()
        gate.opened.set()
        writer = a_writer(gate)
        bodies = [b"%d" % n for n in range(9)]
        bodies[4] = b"poison"
        ended = await asyncio.gather(*(writer.record(an_arrival(body)) for body in bodies), return_exceptions=True)
        await writer.close()
        codes = [getattr(each, "code", "recorded") for each in ended]
        assert codes == ["recorded"] * 4 + ["unstorable"] + ["recorded"] * 4

    asyncio.run(main())


def test_an_outage_fails_the_batch_and_an_outdated_schema_is_looked_at_again():
    """An outage is no poison: nothing is tried by halves."""

    async def main():
        gate = Gate()
        gate.opened.set()
        writer = a_writer(gate)
        for fault, checks in ((StorageUnavailable("away"), 1), (SchemaOutdated("old"), 1), (None, 2), (None, 2)):
            gate.fault, gate.batches = fault, []
            ended = await asyncio.gather(
                *(writer.record(an_arrival(b"%d" % n)) for n in range(4)), return_exceptions=True
            )
            assert len(gate.batches) == 1
            assert {type(each) for each in ended} == {type(fault) if fault else Recorded}
            assert gate.checks == checks
        await writer.close()

    asyncio.run(main())
