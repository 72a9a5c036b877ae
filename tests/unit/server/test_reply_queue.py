"""The queue of replies of one connection: order, portions, late answers."""

from pydsm.machines.base import CommandFailed
from pydsm.server.limits import RespLimits
from pydsm.server.reply_queue import ReplyQueue

ALL = 1 << 20


def test_replies_leave_in_the_order_in_which_they_were_added() -> None:
    queue = ReplyQueue(RespLimits())
    first = queue.add_unanswered(2, 0.0)
    queue.add(2, "PONG")
    third = queue.add_unanswered(2, 0.0)
    third.complete(3)
    assert not queue.is_first_answered
    assert queue.take_encoded(ALL) == b""
    first.complete(1)
    assert queue.take_encoded(ALL) == b":1\r\n+PONG\r\n:3\r\n"
    assert len(queue) == 0


def test_replies_behind_an_unanswered_one_stay_in_the_queue() -> None:
    queue = ReplyQueue(RespLimits())
    queue.add(2, 1)
    queue.add_unanswered(2, 0.0)
    queue.add(2, 3)
    assert queue.take_encoded(ALL) == b":1\r\n"
    assert len(queue) == 2
    assert queue.is_last_answered


def test_a_portion_ends_with_the_reply_that_reaches_the_limit() -> None:
    queue = ReplyQueue(RespLimits())
    for number in (1, 2, 3):
        queue.add(2, number)
    assert queue.take_encoded(5) == b":1\r\n:2\r\n"
    assert queue.take_encoded(5) == b":3\r\n"
    assert queue.take_encoded(5) == b""


def test_a_reply_is_encoded_in_the_protocol_of_its_command() -> None:
    queue = ReplyQueue(RespLimits())
    queue.add(2, None)
    queue.add(3, None)
    assert queue.take_encoded(ALL) == b"$-1\r\n_\r\n"


def test_finish_changes_the_answer_and_only_the_first_answer_counts() -> None:
    queue = ReplyQueue(RespLimits())
    reply = queue.add_unanswered(2, 0.0, lambda answer: [answer])
    reply.complete(1)
    reply.complete(2)
    assert queue.take_encoded(ALL) == b"*1\r\n:1\r\n"


def test_commands_that_arrived_before_a_time_are_answered_with_an_error() -> None:
    queue = ReplyQueue(RespLimits())
    old, answered, new = (queue.add_unanswered(2, since) for since in (1.0, 2.0, 3.0))
    answered.complete(2)
    assert queue.expire(2.5, CommandFailed("ERR late"))
    assert old.is_answered
    assert not new.is_answered
    assert queue.take_encoded(ALL) == b"-ERR late\r\n:2\r\n"
    assert not queue.expire(2.5, CommandFailed("ERR late"))


def test_only_known_answers_are_counted_as_waiting() -> None:
    queue = ReplyQueue(RespLimits())
    queue.add_unanswered(2, 0.0)
    unanswered = queue.waiting_bytes()
    queue.add(2, b"x" * 1000)
    assert queue.waiting_bytes() >= unanswered + 1000
    queue.clear()
    assert len(queue) == 0
    assert not queue.is_last_answered
