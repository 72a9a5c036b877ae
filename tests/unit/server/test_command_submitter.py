"""Submission of a connection's commands: together, in order, and nothing behind a refused command."""

from collections.abc import Sequence

from pydsm.client_protocol.answers import Overloaded
from pydsm.machines.base import CommandFailed
from pydsm.runtime.batching import SubmitMany
from pydsm.runtime.command_queue import Stream
from pydsm.runtime.replies import ReplyMany
from pydsm.server.command_submitter import CommandSubmitter
from pydsm.server.reply_queue import UNANSWERED, PendingReply


class Target:
    """A replica that answers nothing automatically."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.submitted: list[list[bytes]] = []
        self.replies: list[ReplyMany] = []
        self.streams: list[Stream | None] = []
        self.submit_many: SubmitMany = self._submit

    def _submit(self, commands: Sequence[bytes], reply: ReplyMany, stream: Stream | None = None) -> None:
        self.submitted.append(list(commands))
        self.replies.append(reply)
        self.streams.append(stream)


class Submissions:
    """A submitter in front of a `Target`."""

    def __init__(self) -> None:
        self.target = Target()
        self.calls = 0
        self.submitter = CommandSubmitter(self.target, self._answered)

    def _answered(self) -> None:
        self.calls += 1

    def add(self, command: bytes) -> PendingReply:
        reply = PendingReply(2, UNANSWERED)
        self.submitter.add(command, reply)
        return reply


def test_commands_are_submitted_together_in_one_stream_and_each_gets_its_answer() -> None:
    one = Submissions()
    replies = [one.add(command) for command in (b"a", b"b", b"c")]
    assert one.target.submitted == []
    one.submitter.submit()
    one.submitter.submit()
    assert one.target.submitted == [[b"a", b"b", b"c"]]
    one.target.replies[0](1, [2, 3])
    one.target.replies[0](0, [1])
    assert [reply.answer for reply in replies] == [1, 2, 3]
    assert one.calls == 2
    one.add(b"d")
    one.submitter.submit()
    assert one.target.streams[0] is one.target.streams[1]


def test_commands_behind_a_refused_one_are_refused_until_the_refusal_is_sent() -> None:
    one = Submissions()
    one.add(b"a")
    one.submitter.submit()
    one.target.replies[0](0, [Overloaded("full")])
    assert one.add(b"b").answer == Overloaded("full")
    one.submitter.submit()
    assert one.target.submitted == [[b"a"]]
    one.submitter.accept_again()
    assert not one.add(b"c").is_answered
    one.submitter.submit()
    assert one.target.submitted == [[b"a"], [b"c"]]


def test_commands_are_answered_with_an_error_while_the_replica_accepts_none() -> None:
    one = Submissions()
    one.target.refusal = "it sees 1 of 3 replicas"
    expected = CommandFailed("CLUSTERDOWN it sees 1 of 3 replicas; the command was not executed")
    assert repr(one.add(b"a").answer) == repr(expected)
    one.submitter.submit()
    assert one.target.submitted == []


def test_a_command_without_reply_is_submitted_after_the_commands_before_it() -> None:
    one = Submissions()
    one.add(b"a")
    one.submitter.submit_without_reply(b"b")
    assert one.target.submitted == [[b"a"], [b"b"]]
    one.target.replies[1](0, [Overloaded("full")])
    assert one.calls == 0
    assert not one.add(b"c").is_answered
