"""The costs of commands grow no faster than in Redis: measured in lines of Python and allocated bytes."""

import sys
import tracemalloc
from types import FrameType

import pytest

from benchmarks.growth_cases import CASES, CONSTANT, LOGARITHMIC, NOW_MS, Case, machine_for, words_of
from pydsm.machines.kv import COMMANDS, KeyValue, encode

FEW, MANY = 2_000, 16_000
_BYTES_PER_STEP = 64
"""What allocates so many bytes counts as one line: C code copies without executing lines of Python."""


def work(machine: KeyValue, case: Case, size: int) -> int:
    """The number of lines that a command executes, and its peak of allocated bytes; the minimum of several runs."""
    command = [encode(words_of(case.line, size))]
    prepare = [encode(words_of(line, size)) for line in case.prepare]
    found: list[int] = []
    for _ in range(3):
        machine.apply(prepare, NOW_MS)
        lines = _lines(machine, command)
        machine.apply(prepare, NOW_MS)
        found.append(lines + _bytes(machine, command) // _BYTES_PER_STEP)
    return min(found)


def _lines(machine: KeyValue, command: list[bytes]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        machine.apply(command, NOW_MS)
    finally:
        sys.settrace(before)
    return count


def _bytes(machine: KeyValue, command: list[bytes]) -> int:
    tracemalloc.start()
    try:
        machine.apply(command, NOW_MS)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_command_has_a_case() -> None:
    assert {case.command.encode() for case in CASES} == set(COMMANDS)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.redis in {CONSTANT, LOGARITHMIC}], ids=lambda case: case.line
)
def test_a_command_that_is_constant_or_logarithmic_in_redis_does_no_more_work_for_many_elements(case: Case) -> None:
    few, many = (work(machine_for(case, size), case, size) for size in (FEW, MANY))
    assert many < 2 * few + 100


def test_growing_work_is_detected() -> None:
    """Shows that the test above can fail: eight times the elements need nearly eight times the work."""
    for line in ("HGETALL h", "ZRANGE z 0 -1", "GET s", "SMEMBERS m", "KEYS *99*9"):
        (case,) = [case for case in CASES if case.line == line]
        few, many = (work(machine_for(case, size), case, size) for size in (FEW, MANY))
        assert many > 3 * few, line
