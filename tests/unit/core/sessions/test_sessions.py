"""Requests are executed once, repeated ones get their first result, sessions expire, and replicas agree."""

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.core.clocks.agreed_time import TimeLimits
from pydsm.core.log.session_conflicts import sessions_conflict
from pydsm.core.sessions.result_ranges import RESULT_BYTES
from pydsm.core.sessions.session_limits import RequestState, SessionExpired, SessionLimits
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import UNTRACKED_SESSIONS_START, ReplicaId, RequestId, request_at, request_id, session_of
from pydsm.core.types.messages import Batch, Footprint, Run

BEGAN_MS = 1000
IDLE_MS = 500
NOW_MS = 1_700_000_000_000
YEAR_AHEAD_MS = NOW_MS + 365 * 86_400_000
NONE = Footprint()
ONE_RESULT = RESULT_BYTES + 1
"""The bytes that count for a small number as a result."""


def session(number: int = 1, began_ms: int = BEGAN_MS) -> RequestId:
    return request_id(began_ms, ReplicaId(0), number, 0)


ONE, TWO = session(1), session(2)


def batch(
    *runs: tuple[RequestId, int, int] | tuple[RequestId, int, int, int], at_ms: int = BEGAN_MS, again: bool = False
) -> Batch:
    """Commands that are the sequences of their requests."""
    made = tuple(Run(request_at(name, first), count, *rest) for name, first, count, *rest in runs)
    commands = tuple(b"%d" % (run_first + place) for _, run_first, count, *_ in runs for place in range(count))
    retried = tuple(dict.fromkeys([session_of(run.first) for run in made])) if again else ()
    return Batch(made, commands, NONE, at_ms, retried)


class Machine:
    """Answers each command with the number of applied commands, and records them."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[object]:
        results: list[object] = []
        for command in commands:
            self.applied.append(command)
            results.append(len(self.applied))
        return results


class Bench:
    def __init__(self, limits: SessionLimits | None = None) -> None:
        self.machine = Machine()
        self.sessions = Sessions(limits or SessionLimits(idle_ms_max=IDLE_MS))

    def execute(self, one: Batch) -> list[object]:
        return self.sessions.execute(one, self.machine.apply)


def test_a_retried_request_is_not_executed_and_gets_its_first_result() -> None:
    bench = Bench()
    assert bench.execute(batch((ONE, 1, 3))) == [1, 2, 3]
    assert bench.execute(batch((ONE, 2, 1), again=True)) == [2]
    assert bench.machine.applied == [b"1", b"2", b"3"]


def test_only_the_new_requests_of_a_batch_are_executed() -> None:
    bench = Bench()
    bench.execute(batch((ONE, 2, 2)))
    assert bench.execute(batch((ONE, 1, 4), (TWO, 1, 1), again=True)) == [3, 1, 2, 4, 5]
    assert bench.machine.applied == [b"2", b"3", b"1", b"4", b"1"]


def test_one_request_twice_in_one_batch_is_executed_once() -> None:
    bench = Bench()
    assert bench.execute(batch((ONE, 1, 2), (ONE, 2, 1), again=True)) == [1, 2, 2]
    assert bench.machine.applied == [b"1", b"2"]


def test_sessions_have_sequences_of_their_own() -> None:
    bench = Bench()
    assert bench.execute(batch((ONE, 1, 1))) == [1]
    assert bench.execute(batch((TWO, 1, 1))) == [2]


def test_untracked_requests_are_executed_and_no_results_are_kept() -> None:
    bench = Bench()
    untracked = session(UNTRACKED_SESSIONS_START)
    assert bench.execute(batch((untracked, 1, 1))) == [1]
    assert bench.execute(batch((untracked, 1, 1), (ONE, 1, 1))) == [2, 3]
    assert bench.execute(batch((untracked, 2, 1), (ONE, 1, 1), again=True)) == [4, 3]
    assert len(bench.sessions) == 1


def test_an_acknowledged_result_is_dropped_and_its_request_is_still_not_executed_again() -> None:
    bench = Bench()
    bench.execute(batch((ONE, 1, 2)))
    bench.execute(batch((ONE, 3, 1, 3)))
    assert bench.sessions.is_full(session_of(ONE), 3, 1)
    assert not bench.sessions.is_full(session_of(ONE), 3, 2)
    assert not bench.sessions.is_full(session_of(ONE), 4, 1)
    assert not bench.sessions.is_full(session_of(TWO), 0, 1)
    assert bench.execute(batch((ONE, 1, 3), again=True)) == [RequestExpired(), RequestExpired(), 3]
    assert len(bench.machine.applied) == 3


def test_an_acknowledgement_does_not_affect_unexecuted_requests() -> None:
    """A later request may be executed before an earlier one, which commutes with it."""
    bench = Bench()
    assert bench.execute(batch((ONE, 5, 1, 5))) == [1]
    assert bench.execute(batch((ONE, 4, 1))) == [2]


def test_a_request_of_an_expired_session_is_refused() -> None:
    bench = Bench()
    bench.execute(batch((ONE, 1, 1)))
    bench.sessions.expire([BEGAN_MS + IDLE_MS + 1])
    assert bench.execute(batch((ONE, 1, 1), again=True)) == [SessionExpired()]
    assert bench.execute(batch((ONE, 2, 1))) == [SessionExpired()]
    assert bench.machine.applied == [b"1"]


def test_a_session_that_was_used_lately_is_kept_however_old_it_is() -> None:
    bench = Bench()
    bench.execute(batch((ONE, 1, 1)))
    bench.execute(batch((ONE, 2, 1), at_ms=BEGAN_MS + 10 * IDLE_MS))
    bench.sessions.expire([BEGAN_MS + 11 * IDLE_MS])
    assert bench.execute(batch((ONE, 1, 1), again=True)) == [1]


def test_a_session_that_begins_late_enough_is_new_and_not_expired() -> None:
    bench = Bench()
    bench.execute(batch((session(4, BEGAN_MS - 1), 1, 1), at_ms=BEGAN_MS - 1))
    bench.sessions.expire([BEGAN_MS + IDLE_MS])
    assert bench.execute(batch((ONE, 1, 1))) == [2]
    assert bench.execute(batch((session(3, BEGAN_MS - 1), 1, 1))) == [SessionExpired()]


def test_a_session_that_seems_old_but_never_expired_is_new() -> None:
    """It was granted by a clock that was behind, perhaps: nothing of it was ever executed."""
    bench = Bench()
    bench.sessions.expire([BEGAN_MS + 10 * IDLE_MS])
    assert bench.execute(batch((ONE, 1, 1))) == [1]


def test_time_does_not_go_back_at_a_barrier() -> None:
    bench = Bench()
    bench.execute(batch((ONE, 1, 1)))
    bench.sessions.expire([BEGAN_MS + IDLE_MS + 1])
    bench.sessions.expire([1])
    bench.sessions.expire([0])
    assert bench.sessions.time.ms == BEGAN_MS + IDLE_MS + 1
    assert bench.execute(batch((ONE, 1, 1))) == [SessionExpired()]


def test_batches_are_executed_within_a_bounded_distance_of_agreed_time() -> None:
    bench = Bench()
    times: list[int] = []

    def apply(commands: Sequence[bytes], timestamp_ms: int) -> list[object]:
        times.append(timestamp_ms)
        return [None] * len(commands)

    for sequence, at_ms in enumerate((5, NOW_MS + 3), 1):
        bench.sessions.execute(batch((ONE, sequence, 1), at_ms=at_ms), apply)
    bench.sessions.expire([NOW_MS])
    for sequence, at_ms in enumerate((0, 7, NOW_MS - 1, NOW_MS + 3, NOW_MS + 10**9), 3):
        bench.sessions.execute(batch((ONE, sequence, 1), at_ms=at_ms), apply)
    assert times == [5, NOW_MS + 3, NOW_MS, NOW_MS, NOW_MS, NOW_MS + 3, NOW_MS + TimeLimits().distance_ms_max]


def test_a_batch_of_a_wrong_clock_keeps_no_session_for_longer_than_the_bounded_distance() -> None:
    bench = Bench()
    bench.execute(batch((ONE, 1, 1), at_ms=NOW_MS + 10**10))  # before agreed time was set
    bench.sessions.expire([NOW_MS])
    bench.sessions.expire([NOW_MS + TimeLimits().advance_ms_max])
    assert session_of(ONE) in bench.sessions
    for hours in range(1, 5):
        bench.sessions.expire([NOW_MS + hours * 3_600_000])
    assert session_of(ONE) not in bench.sessions


# a state with a wrong time


def poisoned() -> Sessions:
    """As version 1 saved it, after a checkpoint of a clock that was a year ahead."""
    sessions = Sessions(SessionLimits(idle_ms_max=IDLE_MS))
    sessions.restore_parts(iter([msgspec.msgpack.encode((1, YEAR_AHEAD_MS, 0))]))
    return sessions


def test_sessions_after_a_state_with_a_wrong_time_are_granted_later_than_its_expired_sessions() -> None:
    sessions = poisoned()
    assert sessions.has_expired(session_of(session(1, NOW_MS)))
    granted = session(2, sessions.grant_ms(NOW_MS))
    assert sessions.execute(batch((granted, 1, 1), at_ms=NOW_MS), Machine().apply) == [1]
    sessions.expire([NOW_MS + 1])
    assert sessions.execute(batch((granted, 1, 1), at_ms=NOW_MS, again=True), Machine().apply) == [1]


def test_a_request_that_expired_in_a_state_with_a_wrong_time_is_never_executed_again() -> None:
    bench = Bench()
    bench.sessions = poisoned()
    for now_ms in range(NOW_MS, NOW_MS + 20 * IDLE_MS, IDLE_MS):
        bench.sessions.expire([now_ms])
        assert bench.execute(batch((session(1, NOW_MS - 1), 1, 1), at_ms=now_ms, again=True)) == [SessionExpired()]


def test_sessions_of_a_state_with_a_wrong_time_expire_by_their_last_use() -> None:
    sessions = poisoned()
    granted = session(2, sessions.grant_ms(NOW_MS))
    sessions.execute(batch((granted, 1, 1), at_ms=NOW_MS), Machine().apply)
    sessions.expire([NOW_MS + 1])
    sessions.expire([NOW_MS + IDLE_MS + 1])
    assert sessions.has_expired(session_of(granted))
    assert sessions.grant_ms(NOW_MS) > sessions.grant_ms(0) - 1 >= YEAR_AHEAD_MS


def test_agreed_time_that_a_majority_of_wrong_clocks_has_set_is_set_back_and_nothing_is_executed_twice() -> None:
    bench = Bench()
    bench.sessions.expire([NOW_MS])
    bench.execute(batch((ONE, 1, 1), at_ms=NOW_MS))
    for _ in range(12):
        bench.sessions.expire([YEAR_AHEAD_MS])
    bench.execute(batch((session(5, YEAR_AHEAD_MS), 1, 1), at_ms=YEAR_AHEAD_MS))
    bench.sessions.expire([NOW_MS + 5])
    assert bench.sessions.time.ms == NOW_MS + 5
    assert bench.execute(batch((ONE, 1, 1), at_ms=NOW_MS + 6, again=True)) == [SessionExpired()]
    assert bench.execute(batch((session(3, bench.sessions.grant_ms(NOW_MS)), 1, 1), at_ms=NOW_MS + 6)) == [3]


def test_gaps_that_are_given_up_are_closed_at_a_barrier() -> None:
    bench = Bench()
    for sequence in (1, 3, 5, 7):
        bench.execute(batch((ONE, sequence, 1, 4)))
    assert bench.sessions.ranges(session_of(ONE)) == 4
    bench.sessions.expire([BEGAN_MS])
    assert bench.sessions.ranges(session_of(ONE)) == 3
    assert bench.execute(batch((ONE, 2, 1))) == [RequestExpired()]
    assert bench.execute(batch((ONE, 4, 1))) == [5]


def test_results_of_one_session_beyond_its_limit_are_dropped_from_the_oldest_on() -> None:
    bench = Bench(SessionLimits(idle_ms_max=IDLE_MS, session_results_bytes_max=ONE_RESULT + 1))
    bench.execute(batch((ONE, 1, 3)))
    assert bench.execute(batch((ONE, 1, 3), again=True)) == [RequestExpired(), RequestExpired(), 3]
    bench.execute(batch((ONE, 6, 1)))
    bench.sessions.expire([BEGAN_MS])
    assert bench.execute(batch((ONE, 5, 1))) == [5], "what was only dropped is not given up"


def test_results_of_all_sessions_beyond_the_limit_are_dropped_where_most_are() -> None:
    bench = Bench(SessionLimits(idle_ms_max=IDLE_MS, results_bytes_max=3 * ONE_RESULT))
    bench.execute(batch((TWO, 1, 1), (session(3), 1, 2), (ONE, 1, 2)))
    assert bench.execute(batch((session(3), 1, 1), again=True)) == [2], "all are kept until there is a barrier"
    bench.sessions.expire([BEGAN_MS])
    again = batch((TWO, 1, 1), (session(3), 1, 2), (ONE, 1, 2), again=True)
    assert bench.execute(again) == [1, 2, 3, RequestExpired(), RequestExpired()]


def give(sizes: Sequence[int]) -> Callable[[Sequence[bytes], int], list[object]]:
    """A machine whose results have these sizes."""
    return lambda commands, timestamp_ms: [bytes(size) for size in sizes]


def test_nothing_that_one_batch_gives_beyond_its_limit_is_kept_and_everything_is_answered() -> None:
    sessions = Sessions(SessionLimits(batch_results_bytes_max=2000))
    first = sessions.execute(batch((ONE, 1, 2), (TWO, 1, 2)), give((900, 900, 900, 900)))
    assert [len(bytes(result)) for result in first] == [900] * 4  # type: ignore[call-overload]
    assert sessions.held_bytes < 4000
    nothing = give(())
    assert sessions.execute(batch((ONE, 1, 2), again=True), nothing) == [RequestExpired(), RequestExpired()]
    assert sessions.execute(batch((TWO, 1, 2), again=True), nothing) == [bytes(900), bytes(900)]


def test_a_result_too_large_to_be_kept_is_not_even_encoded() -> None:
    def encode(results: list[object]) -> bytes:
        raise AssertionError("encoded")

    sessions = Sessions(SessionLimits(batch_results_bytes_max=1 << 20), encode=encode)
    value = bytes(1 << 16)
    many: list[object] = [[value] * 1_000_000]
    assert sessions.execute(batch((ONE, 1, 1)), lambda commands, timestamp_ms: many) is many
    assert sessions.state_of(request_at(ONE, 1)) is RequestState.DROPPED


def test_dropped_results_are_no_longer_counted_with_any_other_sessions_in_the_batch() -> None:
    sessions = Sessions()
    empty = sessions.held_bytes
    sessions.execute(batch((ONE, 1, 1000), (TWO, 1, 1)), give([1000] * 1001))
    full = sessions.held_bytes
    assert full - empty > 1001 * 1000
    sessions.execute(batch((ONE, 1001, 1, 1000)), give((0,)))
    assert full - sessions.held_bytes > 999 * 1000
    sessions.expire([BEGAN_MS + SessionLimits().idle_ms_max + 1])
    assert sessions.held_bytes == empty


def test_a_session_with_half_of_its_bytes_kept_is_full_until_it_acknowledges() -> None:
    sessions = Sessions(SessionLimits(session_results_bytes_max=2000))
    sessions.execute(batch((ONE, 1, 2)), give((600, 600)))
    assert sessions.is_full(session_of(ONE), 0, 1000)
    assert not sessions.is_full(session_of(ONE), 3, 1000)


def test_a_snapshot_brings_everything_back() -> None:
    bench, other = Bench(), Bench()
    bench.execute(batch((ONE, 1, 3)))
    bench.execute(batch((ONE, 5, 1, 2), (TWO, 1, 1)))
    bench.execute(batch((session(4, BEGAN_MS - 1), 1, 1), at_ms=BEGAN_MS - 1))
    bench.sessions.expire([BEGAN_MS + IDLE_MS])
    other.sessions.restore(bench.sessions.snapshot())
    assert other.sessions.digest() == bench.sessions.digest()
    again = batch((ONE, 1, 5), (TWO, 1, 1), (session(3, 999), 1, 1), again=True)
    assert other.execute(again) == [RequestExpired(), 2, 3, 1, 4, 5, SessionExpired()]
    assert other.sessions.time.ms == bench.sessions.time.ms


def test_parts_of_a_snapshot_do_not_contain_later_changes() -> None:
    bench, other = Bench(), Bench()
    bench.execute(batch((ONE, 1, 3)))
    bench.execute(batch((ONE, 5, 1, 2), (TWO, 1, 1)))
    before = bench.sessions.digest()
    parts = bench.sessions.snapshot_in_parts()
    kept = [next(parts)]
    bench.execute(batch((ONE, 6, 2, 6), (TWO, 2, 1), (session(3), 1, 1)))
    bench.sessions.expire([BEGAN_MS + 10 * IDLE_MS])
    rest = iter([*kept, *parts, b"what follows"])
    other.sessions.restore_parts(rest)
    assert other.sessions.digest() == before != bench.sessions.digest()
    assert list(rest) == [b"what follows"]


@pytest.mark.parametrize(
    "parts", [[], [b"\xff"], [b"\x93\x03\x00\x00"], [b"\x93\x01\x00\x01"], [b"\x93\x01\x00\x01", b"?"]]
)
def test_parts_that_are_none_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(OperationalError, match="sessions"):
        Sessions().restore_parts(iter(parts))


@pytest.mark.parametrize("snapshot", [b"", b"\x93\x03\x00\x90", b"\x90", b"\xff"])
def test_a_snapshot_that_is_none_is_refused(snapshot: bytes) -> None:
    with pytest.raises(OperationalError, match="sessions"):
        Sessions().restore(snapshot)


def test_the_form_of_kept_results_does_not_depend_on_their_batches() -> None:
    together, apart = Bench(), Bench()
    together.execute(batch((ONE, 1, 2)))
    apart.execute(batch((ONE, 1, 1)))
    apart.execute(batch((ONE, 2, 1)))
    assert together.sessions.snapshot() == apart.sessions.snapshot()


def test_the_state_of_a_request_is_reported() -> None:
    bench = Bench()
    assert bench.sessions.state_of(request_at(ONE, 1)) is RequestState.NEW
    bench.execute(batch((ONE, 1, 1), (ONE, 3, 2, 2)))
    fates = [bench.sessions.state_of(request_at(ONE, sequence)) for sequence in (1, 2, 3, 4, 5)]
    assert fates == [RequestState.DROPPED, RequestState.OPEN, RequestState.KEPT, RequestState.KEPT, RequestState.OPEN]
    bench.sessions.expire([BEGAN_MS + IDLE_MS + 1])
    assert bench.sessions.state_of(request_at(ONE, 1)) is RequestState.EXPIRED
    assert bench.sessions.state_of(request_at(session(UNTRACKED_SESSIONS_START), 1)) is RequestState.UNTRACKED


# agreement of replicas that execute in different orders


@st.composite
def histories(draw: st.DrawFn) -> list[Batch]:
    """Batches of two sessions: each request once for the first time, and any of them again."""
    made: list[Batch] = []
    following = {ONE: 1, TWO: 1}
    for _ in range(draw(st.integers(1, 7))):
        name = draw(st.sampled_from([ONE, TWO]))
        acknowledged = draw(st.integers(0, following[name]))
        if draw(st.booleans()):
            count = draw(st.integers(1, 3))
            made.append(batch((name, following[name], count, acknowledged)))
            following[name] += count
        else:
            first = draw(st.integers(1, following[name]))
            made.append(batch((name, first, draw(st.integers(1, 4)), acknowledged), again=True))
    return made


def fixed(commands: Sequence[bytes], timestamp_ms: int) -> list[object]:
    """Each command always gives the same, so that its result does not depend on the order."""
    return [b"<" + command for command in commands]


limits_that_are_reached = st.builds(
    SessionLimits,
    session_results_bytes_max=st.integers(1, 6 * ONE_RESULT),
    batch_results_bytes_max=st.integers(1, 10),
    results_bytes_max=st.integers(1, 10 * ONE_RESULT),
)


@given(histories(), limits_that_are_reached, st.randoms(use_true_random=False))
def test_the_order_of_commuting_batches_does_not_affect_kept_results(
    history: list[Batch], limits: SessionLimits, random: object
) -> None:
    order = list(range(len(history)))
    for _ in range(20):
        place = random.randrange(len(order))  # type: ignore[attr-defined]
        if place and not sessions_conflict(history[order[place - 1]], history[order[place]]):
            order[place - 1], order[place] = order[place], order[place - 1]
    one, other, restored = Sessions(limits), Sessions(limits), Sessions(limits)
    for number, each in enumerate(history):
        one.execute(each, fixed)
        if number == len(history) // 2:
            restored.restore(one.snapshot())
        elif number > len(history) // 2:
            restored.execute(each, fixed)
    for place in order:
        other.execute(history[place], fixed)
    for barrier_ms in (BEGAN_MS, *[BEGAN_MS + limits.idle_ms_max + 1] * 3):
        assert one.snapshot() == other.snapshot() == restored.snapshot()
        assert one.held_bytes == other.held_bytes == restored.held_bytes
        for sessions in (one, other, restored):
            sessions.expire([barrier_ms])
    assert one.held_bytes == 0


@given(histories(), st.randoms(use_true_random=False))
def test_replicas_that_keep_the_order_of_conflicting_batches_agree(history: list[Batch], random: object) -> None:
    order = list(range(len(history)))
    for _ in range(20):
        place = random.randrange(len(order))  # type: ignore[attr-defined]
        if place and not sessions_conflict(history[order[place - 1]], history[order[place]]):
            order[place - 1], order[place] = order[place], order[place - 1]
    one, other = Sessions(), Sessions()
    results = [one.execute(each, fixed) for each in history]
    others = {place: other.execute(history[place], fixed) for place in order}
    for place, each in enumerate(history):
        assert all(
            first == second or (not each.retried and RequestExpired() in (first, second))
            for first, second in zip(results[place], others[place], strict=True)
        )
    assert other.snapshot() == one.snapshot()


@given(histories())
def test_no_request_is_ever_executed_twice(history: list[Batch]) -> None:
    sessions, machine = Sessions(), Machine()
    answers: dict[RequestId, object] = {}
    for each in history:
        for id, result in zip(each.request_ids, sessions.execute(each, machine.apply), strict=True):
            assert result == answers.setdefault(id, result) or isinstance(result, RequestExpired)
    assert len(machine.applied) == len(answers)
