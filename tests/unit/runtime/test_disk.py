"""Both disks: a completed write is durable, and a failure is reported once and ends all writes."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from itertools import count

import pytest

from pydsm.core.types.effects import Record, ReservationRecord
from pydsm.core.types.errors import OperationalError
from pydsm.runtime.disk import QUICK_SECONDS_MAX, Failed, InlineDisk, ThreadedDisk
from pydsm.storage.base import Store
from pydsm.storage.memory import MemoryStore
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio

AnyDisk = Callable[[Store, Failed], InlineDisk | ThreadedDisk]


def quick_disk(store: Store, failed: Failed) -> ThreadedDisk:
    """No write takes any time."""
    return ThreadedDisk(store, failed, clock=lambda: 0.0)


def slow_disk(store: Store, failed: Failed) -> ThreadedDisk:
    """Every write takes a second."""
    seconds = count()
    return ThreadedDisk(store, failed, clock=lambda: float(next(seconds)))


on_each_kind = pytest.mark.parametrize("kind", [InlineDisk, quick_disk, slow_disk])


class ThreadsSeen(MemoryStore):
    """Which threads wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`."""
        self.threads.append(threading.get_ident())
        super().write(records)


class FailingStore(MemoryStore):
    """Fails from the second write on."""

    writes = 0

    def write(self, records: Sequence[Record]) -> None:
        """See `storage.base.Store`."""
        self.writes += 1
        if self.writes > 1:
            raise OperationalError("disk is full")
        super().write(records)


def unexpected(error: Exception) -> None:
    """For disks that do not fail."""
    raise AssertionError(error)


@on_each_kind
async def test_done_is_called_on_the_loop_after_the_write(kind: AnyDisk) -> None:
    store = MemoryStore()
    disk = kind(store, unexpected)
    seen: list[tuple[int, list[Record]]] = []
    disk.write([ReservationRecord(1)], lambda: seen.append((threading.get_ident(), store.load())))
    await eventually(lambda: bool(seen), "the write is done")
    assert seen == [(threading.get_ident(), [ReservationRecord(1)])]
    await disk.close()


@on_each_kind
async def test_jobs_keep_their_order(kind: AnyDisk) -> None:
    disk, order = kind(MemoryStore(), unexpected), list[int]()
    for number in range(100):
        disk.run(lambda number=number: order.append(number), lambda: None)  # type: ignore[misc]
    await disk.close()
    assert order == list(range(100))


@on_each_kind
async def test_a_failure_is_reported_once_and_no_job_runs_after_it(kind: AnyDisk) -> None:
    store, failures, done = FailingStore(), list[Exception](), list[int]()
    disk = kind(store, failures.append)
    for number in range(1, 4):
        disk.write([ReservationRecord(number)], lambda number=number: done.append(number))  # type: ignore[misc]
    await eventually(lambda: bool(failures), "the failure is told")
    await disk.close()
    await asyncio.sleep(0)
    assert [str(failure) for failure in failures] == ["disk is full"]
    assert done == [1]


@on_each_kind
async def test_nothing_else_is_done_with_the_store_after_a_failure(kind: AnyDisk) -> None:
    store, failures, done = FailingStore(), list[Exception](), list[str]()
    disk = kind(store, failures.append)
    for number in (1, 2):
        disk.write([ReservationRecord(number)], lambda: None)
    await eventually(lambda: bool(failures), "the failure is told")
    disk.run(lambda: done.append("job"), lambda: done.append("told"))
    disk.write([ReservationRecord(3)], lambda: done.append("written"))
    await disk.close()
    await asyncio.sleep(0)
    assert (done, store.writes, len(failures)) == ([], 2, 1)


async def times(store: ThreadsSeen, disk: ThreadedDisk, writes: int) -> list[bool]:
    """For so many writes, one after another: whether each was made in the loop."""
    for number in range(1, writes + 1):
        done = asyncio.Event()
        disk.write([ReservationRecord(number)], done.set)
        await done.wait()
    await disk.close()
    return [thread == threading.get_ident() for thread in store.threads]


async def test_writes_stay_in_the_loop_once_one_was_quick() -> None:
    store = ThreadsSeen()
    assert await times(store, quick_disk(store, unexpected), 3) == [False, True, True]


async def test_slow_writes_stay_in_the_thread() -> None:
    store = ThreadsSeen()
    assert await times(store, slow_disk(store, unexpected), 3) == [False, False, False]


async def test_a_slow_write_in_the_loop_is_followed_by_one_in_the_thread() -> None:
    store = ThreadsSeen()
    moments = iter([0, 0, 0, 2 * QUICK_SECONDS_MAX, 0, 0, 0, 0])
    disk = ThreadedDisk(store, unexpected, clock=lambda: next(moments))
    assert await times(store, disk, 4) == [False, True, False, True]


async def test_a_write_in_the_loop_waits_for_earlier_jobs_of_the_thread() -> None:
    store = ThreadsSeen()
    disk, order = quick_disk(store, unexpected), list[str]()
    disk.write([ReservationRecord(1)], lambda: order.append("first"))
    await eventually(lambda: bool(order), "the first is done")
    disk.run(lambda: order.append("job"), lambda: None)
    disk.write([ReservationRecord(2)], lambda: order.append("second"))
    await disk.close()
    await eventually(lambda: len(order) == 3, "all is done")
    assert order == ["first", "job", "second"]
