"""The machine with commuting additions; also shows that the interface supports more than one machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.log.conflicts import footprints_conflict
from pydsm.core.types.errors import UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, StateMachine
from pydsm.machines.counters import Add, CountersMachine, Read, encode

commands = st.one_of(
    st.builds(Add, st.sampled_from([b"a", b"b"]), st.integers(-(2**63), 2**63 - 1)),
    st.builds(Read, st.sampled_from([b"a", b"b"])),
)


def counters_after(*story: Add | Read) -> tuple[StateMachine, list[object]]:
    machine = CountersMachine()
    return machine, machine.apply([encode(command) for command in story], 0)


def test_reads_return_the_sum_and_additions_return_nothing() -> None:
    _, results = counters_after(Read(b"a"), Add(b"a", 2), Add(b"b", 9), Add(b"a", -5), Read(b"a"))
    assert results == [0, None, None, None, -3]


def test_sums_grow_beyond_64_bits_so_that_no_addition_can_fail() -> None:
    most = 2**63 - 1
    _, results = counters_after(Add(b"a", most), Add(b"a", most), Read(b"a"))
    assert results[-1] == 2 * most


def test_additions_are_commuting_updates_and_conflict_with_reads() -> None:
    footprint = CountersMachine().footprint
    adds = footprint([encode(Add(b"a", 1)), encode(Add(b"a", 2)), encode(Add(b"b", 1))])
    reads = footprint([encode(Read(b"b"))])
    assert adds == Footprint(updates=((b"add", (b"a", b"b")),))
    assert reads == Footprint(reads=(b"b",))
    assert not footprints_conflict(adds, adds)
    assert footprints_conflict(adds, reads)


@given(commands, commands, st.lists(commands, max_size=3))
def test_commands_that_do_not_conflict_give_the_same_state_in_either_order(
    left: Add | Read, right: Add | Read, before: list[Add | Read]
) -> None:
    footprints = [CountersMachine().footprint([encode(command)]) for command in (left, right)]
    if footprints_conflict(*footprints):
        return
    forwards, one = counters_after(*before, left, right)
    backwards, other = counters_after(*before, right, left)
    assert one[-2:] == other[-1:-3:-1]
    assert forwards.digest() == backwards.digest()


def test_a_counter_at_zero_equals_an_unknown_counter() -> None:
    machine, _ = counters_after(Add(b"a", 1), Add(b"a", -1), Add(b"b", 0))
    assert machine.digest() == CountersMachine().digest()
    changed, _ = counters_after(Add(b"a", 1))
    assert changed.digest() != machine.digest()
    assert len(machine.digest()) == 32


def test_amount_beyond_64_bits_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not within 64 bits"):
        encode(Add(b"a", 2**64))


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"\x92\x05\xc4\x01a"])
def test_invalid_bytes_are_a_usage_error(garbage: bytes) -> None:
    with pytest.raises(UsageError, match="not a command of the counters"):
        CountersMachine().footprint([garbage])
    assert isinstance(CountersMachine().apply([garbage], 0)[0], CommandFailed)
