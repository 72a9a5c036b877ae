"""A new version of a class executes at every replica from one point of the order on."""

from typing import Any

import pytest

from pydsm import NotAvailable, StateMachine, command, query
from pydsm.core.types.errors import OperationalError
from pydsm.machines.declared.kinds import DeclarationError
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.machines.declared.results import value_of


class ShopV1(StateMachine):
    """Counts."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command(updates="sku")
    def add(self, sku: str, n: int) -> None:
        self.stock[sku] = self.stock.get(sku, 0) + n

    @query(reads="sku")
    def left(self, sku: str) -> int:
        return self.stock.get(sku, 0)


class ShopV2(StateMachine):
    """Counts by place; `add` has one parameter more, and the former one still decodes."""

    version = 2
    former = ShopV1

    def __init__(self) -> None:
        self.places: dict[str, dict[str, int]] = {}

    def migrate(self, former: ShopV1) -> None:
        self.places = {sku: {"here": n} for sku, n in former.stock.items()}

    @command(name="add", updates="sku")
    def add_here(self, sku: str, n: int) -> None:
        ShopV2.add(self, sku, n, "here")

    @command(name="add", since=2, updates="sku")
    def add(self, sku: str, n: int, place: str) -> None:
        places = self.places.setdefault(sku, {})
        places[place] = places.get(place, 0) + n

    @query(reads="sku")
    def left(self, sku: str) -> int:
        return sum(self.places.get(sku, {}).values())


def call(cls: type[StateMachine], name: str, *arguments: Any) -> bytes:
    return cls._declaration.signatures[name].encode(arguments, {})


class Upgrade:
    """Three replicas that execute the same commands, some with the old class, some with the new one."""

    def __init__(self, *classes: type[StateMachine]) -> None:
        self.machines = [DeclaredMachine(cls, member, len(classes)) for member, cls in enumerate(classes)]

    def restart(self, member: int, cls: type[StateMachine]) -> None:
        """With the state that it had."""
        chunks = list(self.machines[member].snapshot())
        self.machines[member] = DeclaredMachine(cls, member, len(self.machines))
        self.machines[member].restore(chunks)

    def execute(self, command: bytes) -> Any:
        """At every replica, whose results and states must be equal."""
        results = [machine.apply([command], 1)[0] for machine in self.machines]
        assert all(result == results[0] for result in results)
        assert len({machine.digest() for machine in self.machines}) == 1
        chunks = [list(filter(None, machine.snapshot())) for machine in self.machines]
        assert all(one == chunks[0] for one in chunks)
        return results[0]

    def announce(self) -> None:
        """What each replica has to announce is executed everywhere."""
        for machine in self.machines:
            for announcement in machine.due_commands(1):
                assert machine.footprint([announcement]).barrier
                self.execute(announcement)

    @property
    def versions(self) -> list[int]:
        return [machine.version for machine in self.machines]


def test_a_rolling_upgrade_changes_the_version_when_the_last_replica_has_it() -> None:
    group = Upgrade(ShopV1, ShopV1, ShopV1)
    group.announce()
    group.execute(call(ShopV1, "add", "bolt", 2))
    for member in range(3):
        assert group.versions == [1, 1, 1]
        group.restart(member, ShopV2)
        group.execute(call(ShopV1, "add", "bolt", 1))
        refused = group.execute(call(ShopV2, "add", "bolt", 1, "there"))
        with pytest.raises(NotAvailable, match="version 1"):
            value_of(refused, ShopV2._declaration.signatures["add"])
        group.announce()
    assert group.versions == [2, 2, 2]
    group.execute(call(ShopV2, "add", "bolt", 1, "there"))
    group.execute(call(ShopV1, "add", "bolt", 1))
    assert group.machines[0].fields() == {"places": {"bolt": {"here": 6, "there": 1}}}
    assert not any(machine.due_commands(1) for machine in group.machines)


def test_a_migrated_state_is_restored_with_its_version_and_the_old_class_refuses_it() -> None:
    group = Upgrade(ShopV2)
    group.announce()
    group.execute(call(ShopV2, "add", "bolt", 1, "there"))
    group.restart(0, ShopV2)
    assert group.versions == [2]
    with pytest.raises(OperationalError, match="the state has version 2 of ShopV1, and this process has 1"):
        group.restart(0, ShopV1)


def test_a_replica_that_goes_back_to_the_old_class_holds_the_migration_up() -> None:
    group = Upgrade(ShopV1, ShopV1)
    group.restart(0, ShopV2)
    group.announce()
    group.restart(0, ShopV1)
    group.announce()
    group.restart(1, ShopV2)
    group.announce()
    assert group.versions == [1, 1]


def test_a_snapshot_in_progress_during_a_migration_has_the_state_before() -> None:
    machine = DeclaredMachine(ShopV2, 0, 1)
    machine.apply([call(ShopV1, "add", "bolt", 2)], 1)
    expected = list(filter(None, machine.snapshot()))
    taken = machine.snapshot()
    machine.apply(machine.due_commands(1), 1)
    machine.apply([call(ShopV2, "add", "bolt", 2, "there")], 1)
    assert list(filter(None, taken)) == expected
    assert machine.version == 2


def test_an_announcement_between_commands_of_a_batch_migrates_between_them() -> None:
    machine = DeclaredMachine(ShopV2, 0, 1)
    (announcement,) = machine.due_commands(1)
    add, later = call(ShopV1, "add", "bolt", 1), call(ShopV2, "add", "bolt", 1, "there")
    results = machine.apply([add, add, announcement, later, add], 1)
    assert results == [None] * 5
    assert machine.fields() == {"places": {"bolt": {"here": 3, "there": 1}}}


def test_a_migration_that_fails_stops_the_replica_and_is_done_at_its_next_start() -> None:
    class Fails(ShopV2):
        def migrate(self, former: ShopV1) -> None:
            self.places = {sku: n for sku, n in former.stock.items()}  # type: ignore[misc] # noqa: C416

    machine = DeclaredMachine(Fails, 0, 1)
    machine.apply([call(ShopV1, "add", "bolt", 1)], 1)
    chunks = list(machine.snapshot())
    (announcement,) = machine.due_commands(1)
    with pytest.raises(OperationalError, match=r"Fails\.migrate failed, DeclarationError: Fails\.places has another"):
        machine.apply([announcement], 1)
    right = DeclaredMachine(ShopV2, 0, 1)
    right.restore(chunks)
    right.apply([announcement], 1)
    assert right.fields() == {"places": {"bolt": {"here": 1}}}


def test_agreed_time_goes_on_in_a_batch_behind_a_migration() -> None:
    class Timed(ShopV2):
        @command
        def when(self) -> int:
            return int(self.now.timestamp())

    machine = DeclaredMachine(Timed, 0, 1)
    results = machine.apply([*machine.due_commands(1), call(Timed, "when")], 1_700_000_000_000)
    assert value_of(results[1], Timed._declaration.signatures["when"]) == 1_700_000_000


def test_fields_that_changed_without_a_version_are_refused_at_the_restart() -> None:
    class Other(StateMachine):
        def __init__(self) -> None:
            self.stock: dict[str, int] = {}
            self.more: int = 0

        @command
        def add(self) -> None: ...

    class OtherType(StateMachine):
        def __init__(self) -> None:
            self.stock: dict[str, str] = {}

        @command
        def add(self) -> None: ...

    machine = DeclaredMachine(ShopV1)
    machine.apply([call(ShopV1, "add", "bolt", 1)], 1)
    chunks = list(machine.snapshot())
    with pytest.raises(OperationalError, match="differ in the fields more: raise `version`"):
        DeclaredMachine(Other).restore(chunks)
    with pytest.raises(OperationalError, match="does not fit the types of the fields: Expected `str`, got `int`"):
        DeclaredMachine(OtherType).restore(chunks)
    for wrong in ([], [b"\xc1"], [chunks[-1]]):
        with pytest.raises(ValueError, match=r"."):
            machine.restore(wrong)


def test_the_former_class_has_the_version_before() -> None:
    with pytest.raises(DeclarationError, match="must have version 2, not 1"):

        class V3(ShopV2):
            version = 3
            former = ShopV1


def test_a_class_may_replace_snapshot_restore_and_digest() -> None:
    class Own(StateMachine):
        def __init__(self) -> None:
            self.text: str = ""

        @command
        def write(self, text: str) -> None:
            self.text += text

        def snapshot(self) -> list[bytes]:
            return [self.text.encode()]

        def restore(self, chunks: Any) -> None:
            self.text = b"".join(chunks).decode()

        def digest(self) -> bytes:
            return self.text.encode()

    machine, other = DeclaredMachine(Own), DeclaredMachine(Own)
    machine.apply([call(Own, "write", "abc")], 1)
    other.restore(list(machine.snapshot()))
    assert other.fields() == {"text": "abc"}
    assert machine.digest() == other.digest() == b"abc"
