"""When batches are proposed, their contents, and that each command is answered once."""

from collections.abc import Sequence

import pytest

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.core.types.errors import InvariantViolation
from pydsm.core.types.ids import SEQUENCES, InstanceId, ReplicaId, RequestId, request_at, request_id, session_of
from pydsm.core.types.messages import Batch, Footprint, Run
from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import Batcher, BatchLimits
from tests.unit.runtime.machines import Lists

ME = ReplicaId(1)


class Bench:
    """A batcher with a core that accepts `room` batches and a loop that the test advances."""

    def __init__(self, limits: BatchLimits | None = None, room: int = 100) -> None:
        self.room = room
        self.proposed: list[Batch] = []
        self.wakes = 0
        self.now: int | None = 1000
        self.answers: dict[str, list[Answer]] = {}
        self.batcher = Batcher(ME, Lists(), self.propose, self.wake, lambda: self.now, limits)

    def propose(self, batch: Batch) -> InstanceId | None:
        if self.room == 0:
            return None
        self.room -= 1
        self.proposed.append(batch)
        return InstanceId(ME, len(self.proposed))

    def wake(self) -> None:
        self.wakes += 1

    def submit(self, *commands: str) -> None:
        for command in commands:
            self.batcher.submit(command.encode(), self.answers.setdefault(command, []).append)

    def submit_and_flush(self, *commands: str) -> None:
        self.submit(*commands)
        self.batcher.flush()

    def execute(self, index: int, *results: object) -> None:
        self.batcher.executed(InstanceId(ME, index), results)
        self.batcher.flush()

    def abort(self, index: int) -> None:
        self.batcher.aborted(InstanceId(ME, index))
        self.batcher.flush()

    @property
    def sizes(self) -> list[int]:
        return [len(batch.commands) for batch in self.proposed]


def test_nothing_is_proposed_while_the_time_is_not_known() -> None:
    bench = Bench()
    bench.now = None
    bench.submit_and_flush("a one")
    assert bench.proposed == []
    bench.now = 7
    bench.batcher.flush()
    assert [batch.timestamp_ms for batch in bench.proposed] == [7]


def test_a_waiting_command_gets_its_timestamp_when_it_is_proposed() -> None:
    bench = Bench(room=0)
    bench.submit_and_flush("a one")
    bench.room, bench.now = 1, 9000
    bench.batcher.flush()
    assert [batch.timestamp_ms for batch in bench.proposed] == [9000]


def test_an_idle_replica_proposes_the_commands_of_a_turn_immediately() -> None:
    bench = Bench()
    bench.submit("a 1", "b 2", "a 3")
    assert bench.wakes == 1
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.commands == (b"a 1", b"b 2", b"a 3")
    assert batch.footprint == Footprint(writes=(b"a", b"b"))
    assert batch.timestamp_ms == 1000


def test_request_ids_differ_within_and_across_batches_and_are_ordered() -> None:
    bench = Bench()
    bench.submit_and_flush("a 1", "b 2")
    bench.submit_and_flush("c 3")
    ids: list[RequestId] = [id for batch in bench.proposed for id in batch.request_ids]
    assert len(set(ids)) == 3
    assert ids == sorted(ids)


def test_a_busy_replica_collects_commands_until_an_instance_is_executed() -> None:
    bench = Bench(BatchLimits(partial_instances_max=2))
    bench.submit_and_flush("a 1")
    bench.submit_and_flush("a 2")
    bench.submit_and_flush("a 3")
    bench.submit_and_flush("a 4")
    assert bench.sizes == [1, 1]
    bench.execute(1, 1)
    assert bench.sizes == [1, 1, 2]


def test_full_batches_are_proposed_below_the_limit_of_instances_in_flight() -> None:
    bench = Bench(BatchLimits(batch_commands_max=2, partial_instances_max=1, instances_max=3))
    bench.submit_and_flush(*(f"a {number}" for number in range(9)))
    assert bench.sizes == [2, 2, 2]


def test_a_batch_of_many_bytes_is_divided_and_a_large_command_is_proposed_alone() -> None:
    bench = Bench(BatchLimits(batch_bytes_max=10, partial_instances_max=9))
    bench.submit_and_flush("a 1", "a 22", "a " + "3" * 50, "a 4")
    assert bench.sizes == [2, 1, 1]


def test_each_command_is_answered_with_its_own_result() -> None:
    bench = Bench()
    bench.submit_and_flush("a 1", "b 2")
    bench.execute(1, "one", "two")
    bench.execute(1, "one", "two")
    assert bench.answers == {"a 1": ["one"], "b 2": ["two"]}
    assert bench.batcher.waiting == 0


def test_instances_of_others_and_of_earlier_starts_answer_no_client() -> None:
    bench = Bench()
    bench.submit_and_flush("a 1")
    bench.batcher.executed(InstanceId(ReplicaId(0), 1), ["not mine"])
    bench.batcher.executed(InstanceId(ME, 99), ["not of this life"])
    bench.batcher.aborted(InstanceId(ME, 98))
    assert bench.answers == {"a 1": []}


def test_aborted_batch_is_tried_again_under_the_same_request_ids_at_a_new_time() -> None:
    bench = Bench()
    bench.submit_and_flush("a 1")
    bench.now = 2000
    bench.abort(1)
    first, second = bench.proposed
    assert second.request_ids == first.request_ids
    assert second.timestamp_ms == 2000
    bench.execute(2, "done")
    assert bench.answers == {"a 1": ["done"]}


def test_batch_that_is_aborted_too_often_is_given_up_as_not_executed() -> None:
    bench = Bench(BatchLimits(attempts_max=2))
    bench.submit_and_flush("a 1")
    bench.abort(1)
    bench.abort(2)
    assert len(bench.proposed) == 2
    assert [type(answer) for answer in bench.answers["a 1"]] == [Aborted]


def test_a_batch_refused_by_the_core_is_kept_and_proposed_later() -> None:
    bench = Bench(room=0)
    bench.submit_and_flush("a 1")
    bench.submit_and_flush("a 2")
    assert bench.proposed == []
    bench.room = 2
    bench.batcher.flush()
    assert [batch.commands for batch in bench.proposed] == [(b"a 1",), (b"a 2",)]


@pytest.mark.parametrize(
    "limits", [BatchLimits(queue_commands_max=2), BatchLimits(queue_bytes_max=8)], ids=["commands", "bytes"]
)
def test_a_full_queue_refuses_immediately_and_keeps_its_commands(limits: BatchLimits) -> None:
    bench = Bench(limits)
    bench.submit("a 1", "a 2", "a 3")
    assert [type(answer) for answer in bench.answers["a 3"]] == [Overloaded]
    bench.batcher.flush()
    assert bench.sizes == [2]


def test_command_over_the_limit_fails() -> None:
    bench = Bench(BatchLimits(command_bytes_max=4))
    bench.submit_and_flush("a 12345")
    (answer,) = bench.answers["a 12345"]
    assert isinstance(answer, CommandFailed)
    assert "7 bytes" in answer.message
    assert bench.proposed == []


def test_command_that_does_not_parse_fails_alone() -> None:
    bench = Bench()
    bench.submit_and_flush("a 1", "", "b 2")
    assert bench.answers[""] == [CommandFailed("a command needs a key")]
    assert bench.proposed[0].commands == (b"a 1", b"b 2")
    bench.submit_and_flush("")
    assert len(bench.proposed) == 1


def test_stopping_batcher_refuses_new_commands_and_finishes_old_ones() -> None:
    bench = Bench(BatchLimits(partial_instances_max=1))
    bench.submit_and_flush("a 1")
    bench.submit_and_flush("a 2")
    bench.batcher.refuse("stopping")
    bench.submit_and_flush("a 3")
    assert bench.answers["a 3"] == [Overloaded("stopping")]
    assert bench.batcher.waiting == 2
    bench.execute(1, "one")
    bench.execute(2, "two")
    assert bench.answers["a 2"] == ["two"]


# Several at a time


def parts(taken: list[tuple[int, list[Answer]]]) -> dict[int, Answer]:
    """Every answer by its position; none may be given twice."""
    found: dict[int, Answer] = {}
    for offset, answers in taken:
        for place, answer in enumerate(answers, start=offset):
            assert place not in found
            found[place] = answer
    return found


def submit_many(bench: Bench, *commands: bytes) -> list[tuple[int, list[Answer]]]:
    taken: list[tuple[int, list[Answer]]] = []
    bench.batcher.submit_many(commands, lambda offset, answers: taken.append((offset, list(answers))))
    return taken


def test_commands_submitted_together_are_answered_in_their_places_batch_by_batch() -> None:
    bench = Bench(BatchLimits(batch_commands_max=3, partial_instances_max=10))
    bench.submit("x 0")
    taken = submit_many(bench, *(b"a %d" % number for number in range(5)))
    bench.submit("y 0")
    bench.batcher.flush()
    assert bench.sizes == [3, 3, 1]
    bench.execute(2, 12, 13, 14)
    bench.execute(1, "x", 10, 11)
    bench.execute(3, "y")
    assert parts(taken) == {0: 10, 1: 11, 2: 12, 3: 13, 4: 14}
    assert bench.answers == {"x 0": ["x"], "y 0": ["y"]}


def test_one_that_does_not_parse_or_is_too_long_does_not_take_the_others_down() -> None:
    bench = Bench(BatchLimits(command_bytes_max=5))
    taken = submit_many(bench, b"a 1", b"b 22222", b"c 3")
    more = submit_many(bench, b"d 4", b"", b"e 5")
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.commands == (b"a 1", b"c 3", b"d 4", b"e 5")
    bench.execute(1, 1, 3, 4, 5)
    found, others = parts(taken), parts(more)
    assert (found[0], found[2], others[0], others[2]) == (1, 3, 4, 5)
    assert isinstance(found[1], CommandFailed)
    assert isinstance(others[1], CommandFailed)


def test_commands_above_the_limit_are_refused_together() -> None:
    bench = Bench(BatchLimits(queue_commands_max=2), room=0)
    assert submit_many(bench, b"a 1", b"a 2", b"a 3") == []
    assert [type(answer) for answer in parts(submit_many(bench, b"b 1", b"b 2")).values()] == [Overloaded, Overloaded]
    bench.batcher.refuse("stopping")
    assert parts(submit_many(bench, b"c 1")) == {0: Overloaded("stopping")}
    assert submit_many(bench) == []
    assert bench.batcher.waiting == 3


def test_commands_of_an_abandoned_batch_are_all_answered_so() -> None:
    bench = Bench(BatchLimits(attempts_max=1))
    taken = submit_many(bench, b"a 1", b"a 2")
    bench.batcher.flush()
    bench.abort(1)
    assert [type(answer) for answer in parts(taken).values()] == [Aborted, Aborted]


def test_a_machine_that_gives_too_few_results_stops_the_replica() -> None:
    bench = Bench()
    submit_many(bench, b"a 1", b"a 2")
    bench.batcher.flush()
    with pytest.raises(InvariantViolation, match="1 results for 2 commands"):
        bench.execute(1, "only one")


# requests of sessions

SESSION = request_id(5000, ReplicaId(2), 77, 0)


def requests(bench: Bench, first: int, *commands: str, is_retry: bool = False, acknowledged: int = 0) -> list[Answer]:
    """Submit commands with the sequences from `first` on; returns the container of their answers."""
    answers: list[Answer] = [None] * len(commands)

    def reply(offset: int, given: Sequence[Answer]) -> None:
        answers[offset : offset + len(given)] = given

    run = Run(request_at(SESSION, first), len(commands), acknowledged)
    bench.batcher.submit_requests(run, [command.encode() for command in commands], reply, is_retry=is_retry)
    return answers


def test_requests_keep_their_ids_and_others_in_between_get_some() -> None:
    bench = Bench()
    bench.submit("a 1", "a 2")
    requests(bench, 1, "b 1", "b 2", acknowledged=1)
    bench.submit("a 3")
    requests(bench, 3, "b 3")
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.commands == (b"a 1", b"a 2", b"b 1", b"b 2", b"a 3", b"b 3")
    own, of_session, other, later = batch.runs
    assert (own.count, other.count) == (2, 1)
    assert of_session == Run(request_at(SESSION, 1), 2, 1)
    assert later == Run(request_at(SESSION, 3), 1)
    assert batch.retried == ()
    assert batch.sessions == {session_of(SESSION)}


def test_a_batch_names_the_sessions_that_it_may_repeat_requests_of() -> None:
    bench = Bench()
    requests(bench, 1, "b 1", is_retry=True)
    requests(bench, 7, "b 2")
    requests(bench, 3, "b 3", is_retry=True)
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.retried == (session_of(SESSION),)


def test_requests_that_do_not_fit_into_one_batch_keep_their_ids_and_answers() -> None:
    bench = Bench(BatchLimits(batch_commands_max=2, partial_instances_max=9))
    answers = requests(bench, 1, *(f"b {number}" for number in range(5)), acknowledged=1)
    bench.batcher.flush()
    assert [batch.runs for batch in bench.proposed] == [
        (Run(request_at(SESSION, 1), 2, 1),),
        (Run(request_at(SESSION, 3), 2, 1, 2),),
        (Run(request_at(SESSION, 5), 1, 1, 4),),
    ]
    for index, results in ((3, ["five"]), (1, ["one", "two"]), (2, ["three", "four"])):
        bench.execute(index, *results)
    assert answers == ["one", "two", "three", "four", "five"]


def test_a_request_that_does_not_parse_takes_no_id_from_the_others() -> None:
    bench = Bench()
    answers = requests(bench, 1, "b 1", "", "b 3")
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.request_ids == (request_at(SESSION, 1), request_at(SESSION, 3))
    bench.execute(1, "one", "three")
    assert (answers[0], answers[2]) == ("one", "three")
    assert isinstance(answers[1], CommandFailed)


def test_a_request_that_is_too_long_takes_no_id_from_the_others() -> None:
    bench = Bench(BatchLimits(command_bytes_max=10))
    answers = requests(bench, 1, "b 1", "b " + "x" * 20, "b 3", is_retry=True)
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.request_ids == (request_at(SESSION, 1), request_at(SESSION, 3))
    assert batch.retried == (session_of(SESSION),)
    bench.execute(1, "one", "three")
    assert (answers[0], answers[2]) == ("one", "three")


def test_commands_without_ids_get_untracked_ids() -> None:
    bench = Bench()
    bench.submit_and_flush("a 1")
    assert not bench.proposed[0].sessions


def test_consecutive_requests_are_one_run_of_the_batch() -> None:
    bench = Bench()
    for first in (1, 2, 3):
        requests(bench, first, f"a {first}", acknowledged=first)
    requests(bench, 5, "a 5", acknowledged=2)
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.runs == (Run(request_at(SESSION, 1), 3, 3), Run(request_at(SESSION, 5), 1, 2))


def test_the_last_requests_that_a_session_can_have_are_a_run_as_any_other() -> None:
    bench = Bench()
    for first in (SEQUENCES - 2, SEQUENCES - 1):
        requests(bench, first, f"a {first}")
    requests(bench, 1, "a 1")
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert batch.runs == (Run(request_at(SESSION, SEQUENCES - 2), 2), Run(request_at(SESSION, 1), 1))
