"""The order of connections and sessions on their way into batches, when these are executed, abandoned, or full."""

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.core.sessions.session_window import POSTPONED
from pydsm.core.types.ids import InstanceId, ReplicaId, SessionId, request_at, request_id, session_of
from pydsm.core.types.messages import Run
from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import BatchLimits
from pydsm.runtime.command_queue import Sequencing, Stream
from tests.unit.runtime.test_batching import ME, Bench

SESSION = request_id(5000, ReplicaId(2), 77, 0)


def pipeline(bench: Bench, stream: Stream, *commands: str) -> list[Answer]:
    """Submit commands of one connection together."""
    answers: list[Answer] = [None] * len(commands)

    def reply(offset: int, given: object) -> None:
        assert isinstance(given, list | tuple)
        answers[offset : offset + len(given)] = given

    bench.batcher.submit_many([command.encode() for command in commands], reply, stream)
    return answers


def requests(bench: Bench, first: int, *commands: str, acknowledged: int = 0, is_retry: bool = False) -> list[Answer]:
    """Submit requests of the session, each after the one before."""
    answers: list[Answer] = [None] * len(commands)

    def reply(offset: int, given: object) -> None:
        assert isinstance(given, list | tuple)
        answers[offset : offset + len(given)] = given

    run = Run(request_at(SESSION, first), len(commands), acknowledged, first - 1)
    bench.batcher.submit_requests(run, [command.encode() for command in commands], reply, is_retry=is_retry)
    return answers


def settled(bench: Bench, *sequences: int) -> None:
    """Execute these requests of the session."""

    def has_settled(session: SessionId, sequence: int) -> bool:
        return session == session_of(SESSION) and sequence in sequences

    bench.batcher._sequencing = Sequencing(has_settled)


def test_commands_wait_while_their_connection_has_an_unexecuted_instance() -> None:
    bench, stream = Bench(BatchLimits(partial_instances_max=9)), Stream()
    pipeline(bench, stream, "a 1", "b 1")
    bench.batcher.flush()
    pipeline(bench, stream, "a 2")
    pipeline(bench, stream, "a 3")
    bench.batcher.flush()
    bench.submit_and_flush("c 1")
    assert [batch.commands for batch in bench.proposed] == [(b"a 1", b"b 1"), (b"c 1",)]
    bench.execute(1, 1, 1)
    assert bench.proposed[-1].commands == (b"a 2", b"a 3")


def test_a_whole_pipeline_goes_into_one_batch_together_with_others() -> None:
    bench = Bench()
    for number in range(10):
        pipeline(bench, Stream(), *(f"k{number} {place}" for place in range(100)))
    bench.batcher.flush()
    assert bench.sizes == [1000]


def test_a_pipeline_longer_than_a_batch_continues_when_its_first_part_is_executed() -> None:
    bench, stream = Bench(BatchLimits(batch_commands_max=2, partial_instances_max=9)), Stream()
    answers = pipeline(bench, stream, *(f"a {number}" for number in range(5)))
    bench.batcher.flush()
    assert bench.sizes == [2]
    bench.execute(1, 0, 1)
    bench.execute(2, 2, 3)
    bench.execute(3, 4)
    assert bench.sizes == [2, 2, 1]
    assert answers == [0, 1, 2, 3, 4]


def test_commands_of_a_nop_are_proposed_again_before_later_ones_of_the_connection() -> None:
    bench, stream = Bench(BatchLimits(partial_instances_max=9)), Stream()
    pipeline(bench, stream, "a 1")
    bench.batcher.flush()
    pipeline(bench, stream, "a 2")
    bench.abort(1)
    assert [batch.commands for batch in bench.proposed] == [(b"a 1",), (b"a 1",)]
    bench.execute(2, 1)
    assert bench.proposed[-1].commands == (b"a 2",)


def test_when_a_command_is_abandoned_later_ones_of_its_connection_are_refused_too() -> None:
    bench, stream, other = Bench(BatchLimits(attempts_max=1, partial_instances_max=1)), Stream(), Stream()
    first = pipeline(bench, stream, "a 1")
    bench.batcher.flush()
    second, unharmed = pipeline(bench, stream, "a 2"), pipeline(bench, other, "b 1")
    bench.abort(1)
    assert isinstance(first[0], Aborted)
    assert isinstance(second[0], Aborted)
    bench.execute(2, 7)
    assert unharmed == [7]
    pipeline(bench, stream, "a 3")
    bench.batcher.flush()
    assert bench.proposed[-1].commands == (b"a 3",)
    assert bench.batcher.waiting == 1


def test_after_a_refused_command_the_rest_of_its_pipeline_is_refused() -> None:
    limits = BatchLimits(command_bytes_max=30, queue_bytes_max=40)
    bench, stream = Bench(limits), Stream()
    answers = pipeline(bench, stream, "a " + "1" * 90, "a " + "2" * 25, "a " + "3" * 25, "a 4")
    bench.batcher.flush()
    assert bench.proposed[0].commands == (b"a " + b"2" * 25,)
    assert isinstance(answers[0], CommandFailed)
    assert isinstance(answers[2], Overloaded)
    assert isinstance(answers[3], Overloaded)


def test_a_connection_whose_commands_do_not_parse_is_not_kept_waiting() -> None:
    bench, stream = Bench(), Stream()
    answers = pipeline(bench, stream, "")
    bench.batcher.flush()
    assert isinstance(answers[0], CommandFailed)
    pipeline(bench, stream, "a 1")
    bench.batcher.flush()
    assert bench.proposed[-1].commands == (b"a 1",)


def test_a_request_names_the_one_before_it_and_its_session_while_that_is_not_executed() -> None:
    bench = Bench(BatchLimits(partial_instances_max=9))
    requests(bench, 1, "a 1", "a 2")
    bench.batcher.flush()
    requests(bench, 3, "b 1")
    bench.batcher.flush()
    assert [batch.runs[0].after for batch in bench.proposed] == [0, 2]
    assert [batch.retried for batch in bench.proposed] == [(), (session_of(SESSION),)]


def test_a_request_behind_nothing_unexecuted_is_not_ordered() -> None:
    bench = Bench()
    settled(bench, 1, 2)
    requests(bench, 3, "a 1")
    bench.batcher.flush()
    assert bench.proposed[0].runs[0].after == 0
    assert bench.proposed[0].retried == ()


def test_a_request_in_the_batch_of_its_predecessor_needs_no_order() -> None:
    bench = Bench()
    requests(bench, 1, "a 1")
    bench.submit("x 1")
    requests(bench, 2, "a 2")
    bench.batcher.flush()
    (batch,) = bench.proposed
    assert [run.after for run in batch.runs] == [0, 0, 0]
    assert batch.retried == ()


def test_a_skipped_run_is_proposed_again_without_answering_its_client() -> None:
    bench = Bench(BatchLimits(partial_instances_max=9))
    first = requests(bench, 1, "a 1")
    bench.batcher.flush()
    second = requests(bench, 2, "b 1")
    bench.submit("x 1")
    bench.batcher.flush()
    bench.abort(1)
    bench.execute(2, POSTPONED, "x")
    assert second == [None]
    assert bench.answers == {"x 1": ["x"]}
    assert [batch.commands for batch in bench.proposed[2:]] == [(b"a 1",), (b"b 1",)]
    assert bench.proposed[3].runs == (Run(request_at(SESSION, 2), 1, 0, 1),)
    bench.execute(3, "first")
    bench.execute(4, "second")
    assert (first, second) == (["first"], ["second"])


def test_a_run_that_is_skipped_repeatedly_is_answered_as_not_executed() -> None:
    bench = Bench(BatchLimits(attempts_max=3))
    answers = requests(bench, 5, "a 1", is_retry=True)
    bench.batcher.flush()
    for index in (1, 2, 3):
        assert answers == [None]
        bench.execute(index, POSTPONED)
    assert isinstance(answers[0], Aborted)
    assert bench.batcher.waiting == 0


def test_nothing_waits_for_a_request_that_was_answered_without_being_proposed() -> None:
    bench = Bench(BatchLimits(partial_instances_max=9))
    requests(bench, 1, "a 1", "", "a 3")
    bench.batcher.flush()
    requests(bench, 4, "")
    requests(bench, 5, "a 5")
    bench.batcher.flush()
    assert [(run.first, run.after) for batch in bench.proposed for run in batch.runs] == [
        (request_at(SESSION, 1), 0),
        (request_at(SESSION, 3), 0),
        (request_at(SESSION, 5), 3),
    ]
    bench.batcher.executed(InstanceId(ME, 1), [1, 3])
