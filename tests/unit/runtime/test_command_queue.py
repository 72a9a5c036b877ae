"""The queue of commands: the order of each connection and the counts, for any sequence of calls."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from pydsm.runtime.command_queue import CommandQueue, Stream, Submission

CONNECTIONS = 3


def part(stream: Stream | None, numbers: range) -> Submission:
    commands = [b"%d" % number for number in numbers]
    return Submission(
        lambda offset, answers: None, 0, commands, sum(map(len, commands)), None, is_retry=False, stream=stream
    )


def numbers_of(parts: list[Submission], stream: Stream | None) -> list[int]:
    return [int(command) for one in parts if one.stream is stream for command in one.commands]


submits = st.tuples(st.just("submit"), st.integers(0, CONNECTIONS), st.integers(1, 4))
takes = st.tuples(st.just("take"), st.integers(1, 5), st.integers(1, 9))
endings = st.tuples(st.sampled_from(["executed", "given up"]), st.integers(0, 9), st.just(0))


@given(st.lists(st.one_of(submits, takes, endings), max_size=60))
def test_commands_of_a_connection_leave_in_order_and_one_instance_at_a_time(
    steps: list[tuple[str, int, int]],
) -> None:
    queue, streams = CommandQueue(), [*(Stream() for _ in range(CONNECTIONS)), None]
    waiting: dict[Stream | None, deque[int]] = {stream: deque() for stream in streams}
    in_flight: list[list[Stream]] = []
    count = 0
    for step, first, second in steps:
        if step == "submit":
            stream = streams[first]
            queue.add(part(stream, range(count, count + second)))
            waiting[stream].extend(range(count, count + second))
            count += second
        elif step == "take":
            busy = {stream for batch in in_flight for stream in batch}
            free = [stream for stream in streams if stream not in busy and waiting[stream]]
            taken = queue.take(first, second)
            assert bool(taken) == bool(free)
            for stream in {one.stream for one in taken}:
                assert stream not in busy, "it has an instance under way"
                for number in numbers_of(taken, stream):
                    assert number == waiting[stream].popleft(), "in order, and nothing is left out"
            in_flight.append(list(dict.fromkeys(one.stream for one in taken if one.stream is not None)))
        elif in_flight:
            ended = in_flight.pop(first % len(in_flight))
            if step == "executed":
                queue.release(ended)
            else:
                dropped = queue.drop(ended)
                for stream in ended:
                    assert numbers_of(dropped, stream) == list(waiting[stream])
                    waiting[stream].clear()
        busy = {stream for batch in in_flight for stream in batch}
        held = [number for stream in streams if stream in busy for number in waiting[stream]]
        free_ones = [number for stream in streams if stream not in busy for number in waiting[stream]]
        assert (queue.held_commands, queue.commands) == (len(held), len(free_ones))
        size_bytes = sum(len(str(number)) for number in held), sum(len(str(number)) for number in free_ones)
        assert (queue.held_bytes, queue.size_bytes) == size_bytes


def test_commands_that_waited_for_room_leave_before_later_ones_of_their_connection() -> None:
    queue, stream = CommandQueue(), Stream()
    queue.add(part(stream, range(2)))
    queue.add(part(stream, range(2, 3)))
    assert numbers_of(queue.take(1, 100), stream) == [0]
    queue.add(part(stream, range(3, 4)))
    assert queue.take(1, 100) == []
    queue.release([stream])
    assert numbers_of(queue.take(9, 100), stream) == [1, 2, 3]
