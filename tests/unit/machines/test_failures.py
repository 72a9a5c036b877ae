"""A command that raises has a result, for every machine and every exception."""

import asyncio
from collections.abc import Sequence

import pytest

from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, CommandRaised, Result
from pydsm.machines.failures import GuardedApply, guarded_footprint


class OutOfStock(Exception):
    """The exception of a user's command."""


class WithoutUndo:
    """Records each `NAME`; then raises the exception that `raises` has for it."""

    def __init__(self, raises: dict[bytes, BaseException] | None = None) -> None:
        self.noted: list[bytes] = []
        self.calls: list[int] = []
        self.raises = raises or {b"bad": OutOfStock("no bolts")}

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        return Footprint(writes=tuple(commands))

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        self.calls.append(len(commands))
        return [self._note(command) for command in commands]

    def _note(self, command: bytes) -> Result:
        self.noted.append(command)
        if command in self.raises:
            raise self.raises[command]
        return len(self.noted)

    def digest(self) -> bytes:
        return b""


class WithUndo(WithoutUndo):
    """`WithoutUndo`, with support for undo."""

    mark = 0

    def savepoint(self) -> None:
        self.mark = len(self.noted)

    def rollback(self) -> None:
        del self.noted[self.mark :]


def ignore(error: BaseException) -> None:
    """Ignore the exception."""


def test_a_command_that_raises_is_undone_and_the_others_are_executed_once() -> None:
    machine = WithUndo()
    results = GuardedApply(machine, ignore)([b"a", b"bad", b"c"], 0)
    assert results == [1, CommandRaised("OutOfStock", "no bolts"), 2]
    assert machine.noted == [b"a", b"c"]


def test_without_undo_the_others_are_executed_once_and_the_result_says_so() -> None:
    machine = WithoutUndo()
    results = GuardedApply(machine, ignore)([b"a", b"bad", b"c"], 0)
    assert [results[0], results[2]] == [1, 3]
    assert machine.noted == [b"a", b"bad", b"c"]
    assert isinstance(results[1], CommandRaised)
    assert results[1].message.startswith("OutOfStock: no bolts; what it had changed before that stays")


def test_machine_with_undo_gets_a_whole_batch_while_nothing_is_raised() -> None:
    machine = WithUndo()
    assert GuardedApply(machine, ignore)([b"a", b"b", b"c"], 0) == [1, 2, 3]
    assert machine.calls == [3]


def test_machine_that_promises_to_raise_nothing_gets_whole_batches_and_fails_as_a_whole() -> None:
    class Promising(WithoutUndo):
        handles_failures = True

    machine = Promising()
    apply = GuardedApply(machine, ignore)
    assert apply([b"a", b"b"], 0) == [1, 2]
    results = apply([b"c", b"bad", b"d"], 0)
    assert [type(result) for result in results] == [CommandRaised] * 3
    assert "in part" in str(results[0])
    assert machine.calls == [2, 3]


@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), RecursionError(), CommandFailed("refused")]
)
def test_whatever_a_command_raises_is_its_result(error: BaseException) -> None:
    seen: list[BaseException] = []
    apply = GuardedApply(WithUndo({b"bad": error}), seen.append)
    assert apply([b"a", b"bad"], 0) == [1, CommandRaised(type(error).__name__, str(error))]
    assert seen == [error]
    assert apply.raised == 1


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), OperationalError("the disk is full")])
@pytest.mark.parametrize("machine", [WithUndo, WithoutUndo])
def test_a_fault_of_this_replica_alone_is_raised(error: BaseException, machine: type[WithoutUndo]) -> None:
    with pytest.raises(type(error)):
        GuardedApply(machine({b"bad": error}), ignore)([b"a", b"bad"], 0)


def test_machine_names_further_faults_of_one_replica() -> None:
    class OnDisk(WithUndo):
        local_faults = (OutOfStock,)

    with pytest.raises(OutOfStock):
        GuardedApply(OnDisk(), ignore)([b"bad"], 0)


@pytest.mark.parametrize("results", [[], [1, 2, 3], (1, 2), None])
def test_wrong_number_of_results_is_a_failure_of_the_commands(results: object) -> None:
    class Miscounting(WithUndo):
        def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
            self.noted += commands
            return results  # type: ignore[return-value]  # the mistake

    machine = Miscounting()
    answers = GuardedApply(machine, ignore)([b"a", b"b"], 0)
    assert answers == [CommandRaised("WrongResults", "")] * 2
    assert machine.noted == []


def test_replicas_agree_on_the_class_and_not_on_the_text() -> None:
    assert CommandRaised("KeyError", "at 0x7f00") == CommandRaised("KeyError", "at 0x7f01")
    assert hash(CommandRaised("KeyError", "a")) == hash(CommandRaised("KeyError", "b"))
    assert CommandRaised("KeyError", "a") != CommandRaised("ValueError", "a")
    assert CommandRaised("KeyError", "") != CommandFailed("KeyError")


def test_text_of_an_exception_is_bounded_and_its_own_failure_is_none() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise OutOfStock

    apply = GuardedApply(WithUndo({b"bad": Silent(), b"long": OutOfStock("x" * 100_000)}), ignore)
    bad, long = apply([b"bad", b"long"], 0)
    assert str(bad) == "Silent: its text is not available"
    assert len(str(long)) < 1000


def test_footprint_that_raises_fails_its_commands_only() -> None:
    class Unsure(WithoutUndo):
        def footprint(self, commands: Sequence[bytes]) -> Footprint:
            raise ZeroDivisionError("of what?")

    with pytest.raises(UsageError, match="footprint raised ZeroDivisionError: of what"):
        guarded_footprint(Unsure(), [b"a"])


@pytest.mark.parametrize(
    "footprint",
    [
        None,
        Footprint(writes=("text",)),  # type: ignore[arg-type]  # the mistakes
        Footprint(reads=(1,)),  # type: ignore[arg-type]
        Footprint(writes=b"text"),  # type: ignore[arg-type]
        Footprint(writes=None),  # type: ignore[arg-type]
        Footprint(updates=(("kind", (b"a",)),)),  # type: ignore[arg-type]
        Footprint(updates=((b"kind",),)),  # type: ignore[arg-type]
        Footprint(updates=((b"kind", (b"a",)), (b"kind", (b"b",)))),
    ],
)
def test_a_footprint_that_cannot_be_encoded_is_refused(footprint: Footprint) -> None:
    class Mistaken(WithoutUndo):
        def footprint(self, commands: Sequence[bytes]) -> Footprint:
            return footprint

    with pytest.raises(UsageError, match="footprint"):
        guarded_footprint(Mistaken(), [b"a"])


def test_keys_in_other_collections_become_the_tuples_that_other_replicas_read() -> None:
    class Listing(WithoutUndo):
        def footprint(self, commands: Sequence[bytes]) -> Footprint:
            return Footprint([b"a"], {b"b"}, [[b"add", [b"c"]]], 1)  # type: ignore[arg-type]  # what people write

    footprint = guarded_footprint(Listing(), [b"a"])
    assert footprint == Footprint((b"a",), (b"b",), ((b"add", (b"c",)),), barrier=True)
    assert footprint.barrier is True
