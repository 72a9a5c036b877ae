"""The transaction commands of one connection, without the connection."""

from collections.abc import Callable

from pydsm.client_protocol.answers import Answer
from pydsm.machines.base import CommandFailed, Result
from pydsm.machines.kv import encode
from pydsm.server.commands import LocalCommand
from pydsm.server.limits import RespLimits
from pydsm.server.transaction_handler import TransactionHandler
from pydsm.server.transactions import ABORTED, Words


class Recorder:
    """A connection that records the actions of its handler."""

    def __init__(self, limits: RespLimits | None = None) -> None:
        self.replies: list[Answer] = []
        self.replicated: list[bytes] = []
        self.finish: Callable[[Answer], Answer] | None = None
        self.without_reply: list[bytes] = []
        self.handler = TransactionHandler(self, limits or RespLimits())

    def reply(self, answer: Answer) -> None:
        self.replies.append(answer)

    def replicate(self, command: bytes, finish: Callable[[Answer], Answer] | None = None) -> None:
        self.replicated.append(command)
        self.finish = finish

    def replicate_without_reply(self, command: bytes) -> None:
        self.without_reply.append(command)

    def execute_local(self, command: LocalCommand, name: bytes, words: Words) -> Result:
        return "local " + name.decode()

    def send(self, line: bytes) -> Answer:
        """Handle one command; the reply to it, or None if a command was submitted instead."""
        words = line.split()
        count = len(self.replies)
        if self.handler.queues(words[0]) and words[0] not in {b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH"}:
            self.handler.queue(words[0], words)
        else:
            self.handler.handle(words[0], words)
        return self.replies[-1] if len(self.replies) > count else None

    def answer(self, answer: Answer) -> Answer:
        """The reply to the command that was submitted last, for this answer of the state machine."""
        assert self.finish is not None
        return self.finish(answer)


def text_of(answer: Answer) -> str:
    assert isinstance(answer, CommandFailed)
    return answer.message


def test_queued_commands_are_replicated_as_one_command_at_exec() -> None:
    one = Recorder()
    assert [one.send(line) for line in (b"MULTI", b"SET a 1", b"PING", b"GET a")] == [
        "OK",
        "QUEUED",
        "QUEUED",
        "QUEUED",
    ]
    assert one.replicated == []
    assert one.send(b"EXEC") is None
    assert len(one.replicated) == 1
    assert one.answer(["OK", b"1"]) == ["OK", "local PING", b"1"]
    assert not one.handler.queues(b"GET")


def test_a_transaction_of_local_commands_is_executed_without_replication() -> None:
    one = Recorder()
    one.send(b"MULTI")
    one.send(b"PING")
    assert one.send(b"EXEC") == ["local PING"]
    assert one.replicated == []


def test_exec_executes_nothing_after_an_error_while_commands_were_queued() -> None:
    one = Recorder()
    one.send(b"MULTI")
    assert "unknown command" in text_of(one.send(b"NOSUCH"))
    assert one.send(b"SET a 1") == "QUEUED"
    assert text_of(one.send(b"EXEC")) == ABORTED
    assert one.replicated == []
    one.send(b"MULTI")
    one.handler.fail(CommandFailed("ERR too large"))
    assert text_of(one.send(b"EXEC")) == ABORTED


def test_a_command_over_the_limit_of_a_transaction_is_refused() -> None:
    one = Recorder(RespLimits(transaction_commands_max=1))
    one.send(b"MULTI")
    one.send(b"GET a")
    assert "longer than 1 commands" in text_of(one.send(b"GET b"))
    assert text_of(one.send(b"EXEC")) == ABORTED


def test_later_commands_are_held_back_until_a_watch_is_answered() -> None:
    one = Recorder()
    one.send(b"WATCH a b")
    assert one.handler.is_watch_pending
    assert one.replicated == [encode((b"WATCH", one.handler.transaction.watch, b"a", b"b"))]
    assert one.answer("OK") == "OK"
    assert not one.handler.is_watch_pending


def test_unwatch_and_discard_end_the_watches_at_the_replicas() -> None:
    one = Recorder()
    watch = one.handler.transaction.watch
    for lines in ([b"UNWATCH"], [b"MULTI", b"DISCARD"]):
        one.send(b"WATCH a")
        assert [one.send(line) for line in lines] == ["OK"] * len(lines)
        assert one.without_reply == [encode((b"UNWATCH", watch, b"a"))]
        assert one.send(b"UNWATCH") == "OK"
        assert len(one.without_reply) == 1
        one.without_reply.clear()


def test_exec_without_commands_is_replicated_if_keys_are_watched() -> None:
    one = Recorder()
    one.send(b"WATCH a")
    one.send(b"MULTI")
    assert one.send(b"EXEC") is None
    assert len(one.replicated) == 2
    assert not one.handler.transaction.watched
    assert one.answer(CommandFailed("ERR x")) is not None


def test_reset_and_quit_are_not_queued() -> None:
    one = Recorder()
    assert not one.handler.queues(b"GET")
    one.send(b"MULTI")
    assert one.handler.queues(b"GET")
    assert not one.handler.queues(b"QUIT")
    assert not one.handler.queues(b"RESET")


def test_commands_outside_of_their_order_are_errors() -> None:
    one = Recorder()
    assert text_of(one.send(b"EXEC")) == "ERR EXEC without MULTI"
    assert text_of(one.send(b"DISCARD")) == "ERR DISCARD without MULTI"
    one.send(b"MULTI")
    assert text_of(one.send(b"MULTI")) == "ERR MULTI calls can not be nested"
    assert text_of(one.send(b"WATCH a")) == "ERR WATCH inside MULTI is not allowed"
    assert one.send(b"UNWATCH") == "QUEUED"
