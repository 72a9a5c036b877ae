"""The checker of real groups objects to what no correct group answers."""

import pytest

from pydsm.sim.history import History
from pydsm.sim.linearizability import Linearizable, NotLinearizable, check
from tests.integration.faults.clients import KeyModel
from tests.integration.faults.faults import plan

Step = tuple[str, int | None, object]


def after_another(*steps: Step) -> History:
    """Calls without any overlap."""
    history = History()
    for place, (action, argument, result) in enumerate(steps):
        call = history.begin(2 * place, 1, "k", action, argument)
        history.done(call, 2 * place + 1, result)
    return history


@pytest.mark.parametrize(
    "steps",
    [
        [
            ("get", None, None),
            ("set", 5, "OK"),
            ("get", None, 5),
            ("incr", None, 6),
            ("swap", 9, 6),
            ("claim", 1, None),
        ],
        [("claim", 3, "OK"), ("claim", 4, None), ("get", None, 3)],
        [("incr", None, 1), ("incr", None, 2)],
    ],
)
def test_a_right_history_is_right(steps: list[Step]) -> None:
    assert isinstance(check(after_another(*steps), KeyModel()), Linearizable)


@pytest.mark.parametrize(
    "steps",
    [
        [("set", 5, "OK"), ("get", None, None)],  # an acknowledged write is lost
        [("set", 5, "OK"), ("set", 6, "OK"), ("get", None, 5)],  # a stale read
        [("incr", None, 1), ("incr", None, 1)],  # two counted the same
        [("claim", 5, "OK"), ("claim", 6, "OK")],  # two hold what only one can
        [("set", 5, "OK"), ("swap", 6, 4)],  # a value that nobody wrote
        [("set", 5, "OK"), ("get", None, "WRONGTYPE")],  # an error out of nowhere
    ],
)
def test_a_wrong_history_is_wrong(steps: list[Step]) -> None:
    assert isinstance(check(after_another(*steps), KeyModel()), NotLinearizable)


def test_a_write_without_an_answer_may_have_happened_or_not_but_not_both() -> None:
    history = after_another(("set", 1, "OK"))
    history.unknown(history.begin(2, 2, "k", "set", 7), 3)
    for number, seen in enumerate((1, 7, 7)):
        history.done(history.begin(10 + 2 * number, 1, "k", "get"), 11 + 2 * number, seen)
    assert isinstance(check(history, KeyModel()), Linearizable)
    history.done(history.begin(30, 1, "k", "get"), 31, 1)
    assert isinstance(check(history, KeyModel()), NotLinearizable)


def test_a_seed_always_gives_the_same_faults() -> None:
    assert [str(fault) for fault in plan(7, 5, 20, 10)] == [str(fault) for fault in plan(7, 5, 20, 10)]
    assert len({fault.name.split()[0] for fault in plan(7, 5, 50, 10)}) == 4
