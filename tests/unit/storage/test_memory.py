"""Which records a store in memory may drop."""

from pydsm.core.types.effects import FrontierRecord
from pydsm.storage.memory import MemoryStore
from tests.unit.storage.records import instance_record


def test_dropped_instances_leave_the_memory_store() -> None:
    store = MemoryStore()
    store.write([instance_record(0, 1), instance_record(0, 2), instance_record(1, 1)])
    store.write([FrontierRecord((2, 1, 0), (1, 0, 0))])
    assert store.load() == [FrontierRecord((2, 1, 0), (1, 0, 0)), instance_record(0, 2), instance_record(1, 1)]
    store.write([instance_record(0, 3), FrontierRecord((3, 1, 0), (2, 1, 0))])
    assert store.load() == [FrontierRecord((3, 1, 0), (2, 1, 0)), instance_record(0, 3)]
