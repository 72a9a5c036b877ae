"""The contract of every store: one suite for all of them."""

from pathlib import Path

import pytest

from pydsm.core.types.effects import FrontierRecord, ReservationRecord
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.storage.memory import MemoryStore
from pydsm.storage.sqlite import SqliteStore
from tests.unit.storage.records import IDENTITY, instance_record

AnyStore = MemoryStore | SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AnyStore:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "data", IDENTITY)


def test_new_store_is_empty(store: AnyStore) -> None:
    assert store.load() == []


def test_records_are_loaded_with_the_reservation_first_and_instances_in_order(store: AnyStore) -> None:
    store.write([instance_record(2, 1), instance_record(0, 10), ReservationRecord(32), instance_record(0, 9)])
    assert store.load() == [
        ReservationRecord(32),
        instance_record(0, 9),
        instance_record(0, 10),
        instance_record(2, 1),
    ]


def test_later_record_replaces_an_earlier_one_across_writes(store: AnyStore) -> None:
    store.write([instance_record(1, 1, b"old"), ReservationRecord(32)])
    store.write([instance_record(1, 1, b"new"), ReservationRecord(64)])
    assert store.load() == [ReservationRecord(64), instance_record(1, 1, b"new")]


def test_later_record_replaces_an_earlier_one_within_a_write(store: AnyStore) -> None:
    store.write([instance_record(1, 1, b"old"), instance_record(1, 1, b"new")])
    assert store.load() == [instance_record(1, 1, b"new")]


def test_the_latest_frontier_is_loaded_behind_the_reservation(store: AnyStore) -> None:
    store.write([FrontierRecord((1, 0, 0), (0, 0, 0)), instance_record(0, 1), ReservationRecord(32)])
    store.write([FrontierRecord((2, 0, 1), (0, 0, 0))])
    assert store.load() == [ReservationRecord(32), FrontierRecord((2, 0, 1), (0, 0, 0)), instance_record(0, 1)]


def test_writing_nothing_is_allowed(store: AnyStore) -> None:
    store.write([])
    assert store.load() == []


def test_incarnation_is_64_random_bits(store: AnyStore) -> None:
    assert 0 <= store.incarnation < 1 << 64
    assert store.incarnation != MemoryStore().incarnation


def test_peers_are_stored(store: AnyStore) -> None:
    store.save_peer(ReplicaId(1), (1 << 64) - 1)
    store.save_peer(ReplicaId(2), 5)
    assert store.peers() == {1: (1 << 64) - 1, 2: 5}


def test_closed_store_refuses_work_and_may_be_closed_again(store: AnyStore) -> None:
    store.close()
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.write([instance_record(0, 1)])
    with pytest.raises(UsageError, match="closed"):
        store.load()
