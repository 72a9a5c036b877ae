from collections.abc import Sequence

from pydsm.sim.base.history import Call, Outcome
from pydsm.sim.checkers.linearizability import Linearizable, NotLinearizable
from pydsm.sim.checkers.windowed import Windows
from pydsm.sim.tools.endurance import state_after
from pydsm.sim.workload.registers import KeyModel


def call(began: int, ended: int | None, action: str, argument: int | None = None, result: object = None) -> Call:
    outcome = Outcome.OPEN if ended is None else Outcome.DONE
    return Call(0, "x", action, argument, began, outcome, result, ended)


def windows() -> Windows:
    return Windows(KeyModel(), state_after)


def counted(calls: Sequence[Call]) -> int:
    return windows().check("x", calls)[1]


def test_a_history_is_cut_behind_a_read_that_overlaps_with_no_call() -> None:
    assert counted([call(0, 1, "add", 5), call(2, 3, "read", None, 5), call(4, None, "add", 1)]) == 2


def test_a_history_is_not_cut_behind_a_call_that_does_not_determine_the_state() -> None:
    assert counted([call(0, 1, "add", 5), call(2, 3, "add", 5)]) == 0


def test_a_history_is_not_cut_where_calls_overlap() -> None:
    assert counted([call(0, 3, "add", 5), call(2, 4, "read", None, 5)]) == 0
    assert counted([call(0, 3, "read", None, 0), call(2, 4, "add", 5)]) == 0


def test_a_history_is_not_cut_behind_an_open_call() -> None:
    assert counted([call(0, None, "add", 5), call(2, 3, "read", None, 5)]) == 0


def test_the_next_window_begins_with_the_state_of_the_last() -> None:
    checked = windows()
    assert checked.check("x", [call(0, 1, "write", 7, 0)]) == (Linearizable(1), 1)
    assert isinstance(checked.check_rest("x", [call(2, 3, "read", None, 7)]), Linearizable)
    assert isinstance(checked.check_rest("x", [call(2, 3, "read", None, 0)]), NotLinearizable)


def test_a_window_that_no_order_explains_is_found() -> None:
    verdict, _ = windows().check("x", [call(0, 1, "write", 7, 0), call(2, 3, "read", None, 8)])
    assert isinstance(verdict, NotLinearizable)
