"""Calls of a declared class: arguments, keys, results, exceptions, agreed values."""

import sys
from typing import Any

import pytest

from pydsm import CommandError, NotAvailable, NotDeterministic, StateMachine, UsageError, command, query
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandRaised, Result
from pydsm.machines.declared.guard import is_development
from pydsm.machines.declared.kinds import encode
from pydsm.machines.declared.machine import DeclaredMachine
from pydsm.machines.declared.results import value_of
from pydsm.runtime.results import decode_results, encode_results
from tests.unit.machines.declared.shops import Careless, Everything, Inventory, OutOfStock, TwoArguments


def call(cls: type[StateMachine], name: str, *arguments: Any, **named: Any) -> bytes:
    return cls._declaration.signatures[name].encode(arguments, named)


class Direct:
    """Executes calls one by one, and gives what a caller gets."""

    def __init__(self, cls: type[StateMachine], *, guarded: bool = False) -> None:
        self.cls = cls
        self.machine = DeclaredMachine(cls, guarded=guarded)

    def result(self, name: str, *arguments: Any, **named: Any) -> Result:
        return self.machine.apply([call(self.cls, name, *arguments, **named)], 1000)[0]

    def __call__(self, name: str, *arguments: Any, **named: Any) -> Any:
        return value_of(self.result(name, *arguments, **named), self.cls._declaration.signatures[name])


def footprint(name: str, *arguments: Any, **named: Any) -> Footprint:
    return DeclaredMachine(Inventory).footprint([call(Inventory, name, *arguments, **named)])


def test_a_command_changes_the_state_and_a_query_reads_it() -> None:
    shop = Direct(Inventory)
    assert shop("add", "bolt", 5) is None
    assert shop("take", "bolt", 2) == 3
    assert shop("take", "bolt") == 2, "a default of a parameter"
    assert shop("left", "bolt") == 2
    assert shop("left_of", ["bolt", "nut"]) == [2, 0]
    assert shop("everything_left") == {"bolt": 2}


def test_a_command_that_raises_has_changed_nothing_and_its_caller_gets_the_exception() -> None:
    shop = Direct(Inventory)
    shop("add", "bolt", 1)
    with pytest.raises(OutOfStock) as raised:
        shop("take", "bolt", 2)
    assert raised.value.args == ("bolt",)
    assert shop("left", "bolt") == 1


def test_an_exception_with_arguments_of_its_own_is_made_again_with_its_text() -> None:
    shop = Direct(Inventory)
    with pytest.raises(TwoArguments) as raised:
        shop("move", "bolt", "nut", n=2)
    assert raised.value.args == ("bolt", 2)
    assert str(raised.value) == "('bolt', 2)"
    assert shop("everything_left") == {}


def test_an_exception_of_the_interpreter_reaches_the_caller_and_replicas_agree_on_its_class_only() -> None:
    shop = Direct(Inventory)
    with pytest.raises(KeyError, match="bolt"):
        shop("broken", "bolt")
    result = shop.result("broken", "bolt")
    assert isinstance(result, CommandRaised)
    assert encode_results([result]) == encode_results([CommandRaised("KeyError", "another text")])
    assert shop.machine.fields()["total"] == 0, "undone"


def test_the_result_of_an_own_exception_survives_a_snapshot_of_the_sessions_with_its_text() -> None:
    shop = Direct(Inventory)
    (kept,) = decode_results(encode_results([shop.result("take", "bolt", 2)]))
    with pytest.raises(OutOfStock, match="bolt"):
        value_of(kept, Inventory._declaration.signatures["take"])


def test_commands_behind_one_that_raised_are_executed() -> None:
    machine = DeclaredMachine(Inventory)
    calls = [call(Inventory, "add", "a", 1), call(Inventory, "take", "b", 1), call(Inventory, "add", "a", 1)]
    machine.apply(calls, 1)
    assert machine.fields()["stock"] == {"a": 2}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError, OperationalError, RecursionError])
def test_only_what_is_a_fault_of_this_replica_stops_it(error: type[BaseException]) -> None:
    class Raises(StateMachine):
        def __init__(self) -> None:
            self.n: int = 0

        @command
        def fail(self) -> None:
            self.n += 1
            raise error

    shop = Direct(Raises)
    if error in (KeyboardInterrupt, MemoryError, OperationalError):
        with pytest.raises(error):
            shop.result("fail")
    else:
        assert isinstance(shop.result("fail"), CommandRaised)
        assert shop.machine.fields() == {"n": 0}


def test_a_query_that_changes_something_fails_and_changes_nothing() -> None:
    shop = Direct(Inventory)
    with pytest.raises(TypeError, match="is a query"):
        shop("wrong")
    assert shop.machine.fields()["total"] == 0


def test_a_query_may_look_at_objects_that_can_be_changed() -> None:
    class Looks(Everything):
        @query
        def look(self) -> str:
            return self.first.name

        @query
        def touch(self) -> None:
            self.first.name = "changed"

    shop = Direct(Looks)
    assert shop("look") == "first"
    with pytest.raises(TypeError, match="is a query"):
        shop("touch")
    assert shop("look") == "first"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("bolt", "x"), "Inventory.add: expected `int`, got `str` - at `n`"),
        ((5, 5), "Inventory.add: expected `str`, got `int` - at `sku`"),
        (("bolt", 5.5), "at `n`"),
        (("bolt", True), "at `n`"),
        (("bolt",), "missing a required argument: 'n'"),
        (("bolt", 1, 2), "too many positional arguments"),
        (("bolt", 1 << 70), "Inventory.add: "),
        (("\ud800", 1), "Inventory.add: "),
    ],
)
def test_a_wrong_argument_is_a_type_error_of_the_caller(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(TypeError) as raised:
        call(Inventory, "add", *arguments)
    assert text in str(raised.value)


def test_keys_are_those_that_the_decorators_name() -> None:
    key = encode("a")
    assert footprint("add", "a", 1) == Footprint(updates=((b"add", (key,)),))
    assert footprint("take", "a") == Footprint(writes=(key,))
    assert footprint("move", "a", "b", n=1) == Footprint(writes=(key, encode("b")))
    assert footprint("left", "a") == Footprint(reads=(key,))
    assert footprint("left_of", ["a", "b"]) == Footprint(reads=(key, encode("b"))), "each item of a list is a key"
    for name, arguments in (("clear", ()), ("broken", ("a",)), ("everything_left", ())):
        assert footprint(name, *arguments).barrier


def test_equal_keys_of_different_types_are_one_key() -> None:
    class Mixed(StateMachine):
        def __init__(self) -> None:
            self.n: int = 0

        @command(writes="key")
        def by_int(self, key: int) -> None: ...

        @command(writes="key")
        def by_float(self, key: float) -> None: ...

        @command(writes="key")
        def by_bool(self, key: bool) -> None: ...

        @command(writes=lambda n, m: (n, float(m)))
        def by_function(self, n: int, m: int) -> None: ...

        @command(writes=lambda pair: pair)
        def by_pair(self, pair: tuple[int, int]) -> None: ...

    machine = DeclaredMachine(Mixed)
    keys = {
        machine.footprint([call(Mixed, name, value)]).writes
        for name, value in (("by_int", 1), ("by_float", 1.0), ("by_bool", True))
    }
    assert len(keys) == 1
    pairs = [call(Mixed, "by_function", 1, 2), call(Mixed, "by_pair", (1, 2))]
    assert len({machine.footprint([one]).writes for one in pairs}) == 1


def test_bytes_that_are_no_call_are_not_proposed_and_a_call_of_another_version_fails_alike_everywhere() -> None:
    machine = DeclaredMachine(Inventory)
    for wrong in (b"", b"\xc0", b"\x90", encode(["add", "a", 1]) + b"\x00", encode([7])):
        with pytest.raises(UsageError):
            machine.footprint([wrong])
    later = encode(["add:2", "a", 1])
    assert machine.footprint([later]).barrier
    (result,) = machine.apply([later], 1)
    with pytest.raises(NotAvailable, match="version 1"):
        value_of(result, Inventory._declaration.signatures["add"])
    results = machine.apply([call(Inventory, "add", "a", 1), later, call(Inventory, "left", "a")], 1)
    assert results[2] == encode(1), "the commands around it are executed"


def test_results_do_not_depend_on_the_order_of_insertion() -> None:
    one, other = Direct(Inventory), Direct(Inventory)
    for sku in ("a", "b"):
        one("add", sku, 1)
    for sku in ("b", "a"):
        other("add", sku, 1)
    assert one.result("everything_left") == other.result("everything_left")
    assert one.machine.digest() == other.machine.digest()


def test_a_result_that_its_annotation_does_not_allow_is_a_type_error_and_undone() -> None:
    class Liar(StateMachine):
        def __init__(self) -> None:
            self.n: int = 0

        @command
        def lie(self) -> int:
            self.n += 1
            return "text"  # type: ignore[return-value]

    shop = Direct(Liar)
    with pytest.raises(TypeError, match="annotation does not allow"):
        shop("lie")
    assert shop.machine.fields() == {"n": 0}


def test_where_results_are_not_read_the_state_is_the_same() -> None:
    calls = [
        call(Inventory, "add", "a", 3),
        call(Inventory, "take", "a", 2),
        call(Inventory, "take", "a", 2),
        call(Inventory, "left", "a"),
        call(Inventory, "wrong"),
        call(Inventory, "broken", "a"),
    ]
    read, unread = DeclaredMachine(Inventory), DeclaredMachine(Inventory)
    assert len(read.apply(calls, 1)) == len(unread.apply_unread(calls, 1)) == len(calls)
    assert read.digest() == unread.digest()


def test_agreed_values_are_the_same_at_each_replica_and_others_for_each_call() -> None:
    one, other = Direct(Careless), Direct(Careless)
    calls = [call(Careless, "agreed") for _ in range(2)]
    first, second = one.machine.apply(calls, 1_700_000_000_123)
    assert [first, second] == other.machine.apply(calls, 1_700_000_000_123)
    assert first != second
    assert b"2023-11-14T22:13:20.123000+00:00" in (first if isinstance(first, bytes) else b"")


def test_agreed_values_exist_in_commands_only() -> None:
    with pytest.raises(RuntimeError, match="only while a command"):
        _ = Careless().now


def test_the_guard_finds_clocks_and_chance_behind_other_functions() -> None:
    shop = Direct(Careless, guarded=True)
    with pytest.raises(NotDeterministic, match=r"shops.py:\d+: now_of_this_process calls time.time: .*self.now"):
        shop("clock")
    assert shop.machine.fields() == {"times": []}, "undone"
    with pytest.raises(NotDeterministic, match=r"number calls Random\.random"):
        shop("number")
    shop("agreed")


def test_a_class_that_this_process_does_not_know_is_named() -> None:
    def elsewhere() -> Result:
        class Elsewhere(Exception):
            pass

        class Fails(StateMachine):
            def __init__(self) -> None:
                self.n: int = 0

            @command
            def fail(self) -> None:
                raise Elsewhere("why")

        return Direct(Fails).result("fail")

    result = elsewhere()
    assert isinstance(result, bytes)
    unknown = result.replace(b"Elsewhere", b"Elsewhat_")
    with pytest.raises(CommandError, match=r"Elsewhat_: why"):
        value_of(unknown, Inventory._declaration.signatures["add"])


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_the_environment_switches_the_guard_on(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDSM_GUARD", value)
    assert is_development() == (expected or sys.flags.dev_mode)
