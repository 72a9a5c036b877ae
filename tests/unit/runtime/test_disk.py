"""Both disks: done means durable, and a failure is told once and ends everything."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from pydsm.core.effects import Record, ReservationRecord
from pydsm.core.faults import WorldFault
from pydsm.runtime.disk import InlineDisk, ThreadedDisk
from pydsm.storage.memory import MemoryStore
from tests.waiting import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.parametrize("kind", [InlineDisk, ThreadedDisk])]

AnyDisk = type[InlineDisk] | type[ThreadedDisk]


class FailingStore(MemoryStore):
    """Fails from the second write on."""

    writes = 0

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`."""
        self.writes += 1
        if self.writes > 1:
            raise WorldFault("disk is full")
        super().write(records)


def unexpected(error: Exception) -> None:
    """For disks that do not fail."""
    raise AssertionError(error)


async def test_done_is_called_on_the_loop_after_the_write(kind: AnyDisk) -> None:
    store = MemoryStore()
    disk = kind(store, unexpected)
    seen: list[tuple[int, list[Record]]] = []
    disk.write([ReservationRecord(1)], lambda: seen.append((threading.get_ident(), store.load())))
    await eventually(lambda: bool(seen), "the write is done")
    assert seen == [(threading.get_ident(), [ReservationRecord(1)])]
    await disk.close()


async def test_jobs_keep_their_order(kind: AnyDisk) -> None:
    disk, order = kind(MemoryStore(), unexpected), list[int]()
    for number in range(100):
        disk.run(lambda number=number: order.append(number), lambda: None)  # type: ignore[misc]
    await disk.close()
    assert order == list(range(100))


async def test_failure_is_told_once_and_nothing_is_done_after_it(kind: AnyDisk) -> None:
    store, failures, done = FailingStore(), list[Exception](), list[int]()
    disk = kind(store, failures.append)
    for number in range(1, 4):
        disk.write([ReservationRecord(number)], lambda number=number: done.append(number))  # type: ignore[misc]
    await eventually(lambda: bool(failures), "the failure is told")
    await disk.close()
    await asyncio.sleep(0)
    assert [str(failure) for failure in failures] == ["disk is full"]
    assert done == [1]
