"""The checker decides known histories correctly, and agrees with an enumeration of all orders."""

from collections.abc import Hashable, Sequence
from itertools import chain, combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydsm.sim.base.history import Call, History, Outcome, begin_time, end_time
from pydsm.sim.checkers.linearizability import Linearizable, NotLinearizable, Undecided, check, check_key
from pydsm.sim.workload.registers import KeyModel

MODEL = KeyModel()


def call(began: int, ended: int | None, action: str, argument: int | None = None, result: object = None) -> Call:
    outcome = Outcome.UNKNOWN if ended is None else Outcome.DONE
    return Call(0, "x", action, argument, began, outcome, result, ended)


def verdict(*calls: Call) -> object:
    return type(check_key("x", calls, MODEL))


def test_a_read_after_a_write_sees_it() -> None:
    assert verdict(call(0, 1, "write", 5, 0), call(2, 3, "read", None, 5)) is Linearizable


def test_a_read_after_a_write_must_not_miss_it() -> None:
    assert verdict(call(0, 1, "write", 5, 0), call(2, 3, "read", None, 0)) is NotLinearizable


def test_a_read_during_a_write_may_see_either_value() -> None:
    for seen in (0, 5):
        assert verdict(call(0, 10, "write", 5, 0), call(2, 3, "read", None, seen)) is Linearizable


def test_a_value_that_was_seen_during_a_write_stays() -> None:
    assert (
        verdict(call(0, 10, "write", 5, 0), call(2, 3, "read", None, 5), call(4, 5, "read", None, 0)) is NotLinearizable
    )


def test_two_readers_must_see_two_writes_in_one_order() -> None:
    one_order = [call(0, 10, "write", 1, 0), call(0, 10, "write", 2, 1)]
    assert verdict(*one_order, call(11, 12, "read", None, 2)) is Linearizable
    assert verdict(*one_order, call(11, 12, "read", None, 2), call(13, 14, "read", None, 1)) is NotLinearizable


def test_an_unknown_write_may_have_happened_never_or_late() -> None:
    unknown = call(0, None, "write", 5)
    assert verdict(unknown, call(2, 3, "read", None, 0)) is Linearizable
    assert verdict(unknown, call(2, 3, "read", None, 5)) is Linearizable
    assert verdict(unknown, call(2, 3, "read", None, 0), call(4, 5, "read", None, 5)) is Linearizable
    assert verdict(unknown, call(2, 3, "read", None, 5), call(4, 5, "read", None, 0)) is NotLinearizable


def test_an_unknown_write_cannot_happen_before_it_began() -> None:
    assert verdict(call(2, 3, "read", None, 5), call(4, None, "write", 5)) is NotLinearizable


def test_an_unknown_addition_happens_at_most_once() -> None:
    assert verdict(call(0, None, "add", 3), call(1, 2, "read", None, 6)) is NotLinearizable


def test_a_refused_take_is_valid_only_if_the_value_was_too_small() -> None:
    assert verdict(call(0, 1, "add", 3, None), call(2, 3, "take", 5, "refused")) is Linearizable
    assert verdict(call(0, 1, "add", 7, None), call(2, 3, "take", 5, "refused")) is NotLinearizable


def test_keys_are_checked_separately_and_the_wrong_one_is_named() -> None:
    history = History()
    for key, seen in (("a", 1), ("b", 0)):
        write = history.begin(0, 1, key, "write", 1)
        history.done(write, 1, 0)
        read = history.begin(2, 2, key, "read")
        history.done(read, 3, seen)
    found = check(history, MODEL)
    assert isinstance(found, NotLinearizable)
    assert found.key == "b"
    assert "write b 1" in str(found)
    assert found.stuck[0].action == "read"


def test_a_failed_call_has_no_effect() -> None:
    history = History()
    history.failed(history.begin(0, 1, "a", "write", 1), 1)
    history.done(history.begin(2, 1, "a", "read"), 3, 0)
    assert isinstance(check(history, MODEL), Linearizable)


def test_a_search_that_is_too_long_is_undecided() -> None:
    calls = [call(0, None, "add", 1 << place) for place in range(20)]
    calls.append(call(1, 2, "read", None, -1))
    assert isinstance(check_key("x", calls, MODEL, configurations_max=1000), Undecided)


def test_a_long_quiet_history_is_checked_in_a_few_steps() -> None:
    calls = [call(2 * place, 2 * place + 1, "add", 1, None) for place in range(3000)]
    calls.append(call(6000, 6001, "read", None, 3000))
    found = check_key("x", calls, MODEL)
    assert found == Linearizable(3001)


def explained(order: Sequence[Call]) -> bool:
    for place, later in enumerate(order):
        if any(later.ended is not None and later.outcome is Outcome.DONE and later.ended < one.began
               for one in order[:place]):  # fmt: skip
            return False
    state: Hashable = MODEL.initial("x")
    for one in order:
        result, state = MODEL.step(state, one)
        if one.outcome is Outcome.DONE and result != one.result:
            return False
    return True


def linearizable_by_trying_everything(calls: Sequence[Call]) -> bool:
    answered = [one for one in calls if one.outcome is Outcome.DONE]
    unknown = [one for one in calls if one.outcome is not Outcome.DONE]
    happened = chain.from_iterable(combinations(unknown, size) for size in range(len(unknown) + 1))
    return any(explained(order) for chosen in happened for order in permutations([*answered, *chosen]))


@st.composite
def histories(draw: st.DrawFn) -> list[Call]:
    calls = []
    for _ in range(draw(st.integers(1, 5))):
        began = draw(st.integers(0, 12))
        ended = draw(st.one_of(st.none(), st.integers(began, 14)))
        action = draw(st.sampled_from(["read", "write", "add"]))
        argument = None if action == "read" else draw(st.integers(1, 2))
        result = None if action == "add" else draw(st.integers(0, 3))
        calls.append(call(began, ended, action, argument, result))
    return calls


@given(histories())
@settings(max_examples=400, deadline=None)
def test_the_search_agrees_with_trying_every_order(calls: list[Call]) -> None:
    expected = linearizable_by_trying_everything(calls)
    assert isinstance(check_key("x", calls, MODEL), Linearizable) is expected


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNKNOWN])
def test_an_answer_after_giving_up_changes_nothing(outcome: Outcome) -> None:
    history = History()
    one = history.begin(0, 1, "a", "write", 1)
    (history.failed if outcome is Outcome.FAILED else history.unknown)(one, 5)
    history.done(one, 6, 0)
    assert (one.outcome, one.ended) == (outcome, 5)


def sent(history: History, program: object, action: str, key: str, argument: object, *result: object) -> None:
    """A call between the times 0 and 99; answered if a result is given."""
    call = history.begin(0, 1, key, action, argument)
    call.program = program
    if result:
        history.done(call, 99, result[0])


def test_two_keys_written_in_a_row_are_never_seen_the_other_way_round() -> None:
    history = History()
    sent(history, "writer", "write", "data", 1, 0)
    sent(history, "writer", "write", "ready", 1, 0)
    sent(history, "reader", "read", "ready", None, 1)
    sent(history, "reader", "read", "data", None, 0)
    for call in history.calls:
        call.program = None
    assert isinstance(check(history, KeyModel()), Linearizable)
    for call in history.calls:
        call.program = "writer" if call.action == "write" else "reader"
    assert isinstance(check(history, KeyModel()), NotLinearizable)


def test_what_was_sent_in_a_row_on_one_key_ends_with_the_last() -> None:
    history = History()
    sent(history, "writer", "write", "x", 1, 2)
    sent(history, "writer", "write", "x", 2, 0)
    assert isinstance(check(history, KeyModel()), NotLinearizable)


def test_a_call_of_unknown_outcome_takes_effect_before_later_ones_of_its_program_or_never() -> None:
    history = History()
    sent(history, "writer", "write", "x", 1)
    sent(history, "writer", "write", "x", 2, 0)
    sent(history, None, "read", "x", None, 2)
    assert isinstance(check(history, KeyModel()), Linearizable)
    late = history.begin(200, 2, "x", "read")
    history.done(late, 201, 1)
    assert isinstance(check(history, KeyModel()), NotLinearizable)


def test_keys_that_one_call_names_are_checked_together() -> None:
    history = History()
    move = history.begin(1, 1, "a", "move", 5)
    move.other_keys = ("b",)
    history.done(move, 10, (0, 0))
    for moment, key, value in ((2, "a", -5), (4, "b", 0)):
        read = history.begin(moment, 2, key, "read")
        history.done(read, moment + 1, value)
    assert isinstance(check(history, KeyModel()), NotLinearizable)
    history.calls[-1].result = 5
    assert isinstance(check(history, KeyModel()), Linearizable)


def test_calls_of_one_client_in_the_same_step_do_not_overlap() -> None:
    assert end_time(7) < begin_time(7) < end_time(8)
