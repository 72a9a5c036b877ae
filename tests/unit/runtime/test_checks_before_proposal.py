"""An exception in a user's footprint or conflict relation fails the command before it is proposed."""

import json
from collections.abc import Sequence

import pytest

from pydsm.client_protocol.answers import Answer
from pydsm.core.log.conflicts import UserRelation
from pydsm.core.sessions.session_window import POSTPONED
from pydsm.core.types.ids import ReplicaId, request_id
from pydsm.core.types.messages import Footprint, Run
from pydsm.machines.base import CommandFailed
from tests.unit.runtime.machines import Lists
from tests.unit.runtime.test_batching import Bench
from tests.unit.runtime.test_node import group
from tests.waiting import eventually


class Keyless(Lists):
    """A machine whose conflicts are decided by a relation."""

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `machines.base.StateMachine`."""
        return Footprint()


class Moody(Lists):
    """Its footprint raises for more commands at a time than `most`."""

    most = 1

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `machines.base.StateMachine`."""
        if len(commands) > self.most:
            raise ZeroDivisionError
        return super().footprint(commands)


def same_text(left: bytes, right: bytes) -> bool:
    """Raises for a command that is not JSON."""
    return bool(json.loads(left) == json.loads(right))


@pytest.mark.asyncio
async def test_a_users_relation_that_raises_fails_its_command_and_no_replica() -> None:
    async with group(make_machine=Keyless, relation=UserRelation(same_text)) as nodes:
        answers: list[Answer] = []
        for command in (b'"a"', b"[", b'"b"', b"[" * 100_000):
            nodes.nodes[0].submit(command, answers.append)
        await eventually(lambda: len(answers) == 4, "all are answered")
        assert sorted(str(answer) for answer in answers if isinstance(answer, CommandFailed)) == [
            "the conflict relation raised JSONDecodeError for the command",
            "the conflict relation raised RecursionError for the command",
        ]
        for replica in range(3):
            assert await nodes.ask(replica, '"c"') == ()


@pytest.mark.asyncio
async def test_commands_that_cannot_be_compared_with_each_other_conflict() -> None:
    def conflict(left: bytes, right: bytes) -> bool:
        return left != right and bool(1 // 0)

    async with group(make_machine=Keyless, relation=UserRelation(conflict)) as nodes:
        answers: list[Answer] = []
        for word in range(10):
            for replica in range(3):
                nodes.nodes[replica].submit(b"a %d" % (10 * word + replica), answers.append)
        await eventually(lambda: len(answers) == 30, "all are answered")
        assert not any(isinstance(answer, CommandFailed) for answer in answers)
        await eventually(lambda: len(nodes.digests()) == 1, "all replicas agree")


def test_commands_whose_footprint_raises_only_for_them_together_fail() -> None:
    bench = Bench()
    bench.batcher._machine = Moody()
    bench.submit_and_flush("a one", "b two")
    assert bench.proposed == []
    for command in ("a one", "b two"):
        assert "footprint raised ZeroDivisionError" in str(bench.answers[command])
    bench.submit_and_flush("c three")
    assert bench.sizes == [1]


def test_a_footprint_that_raises_when_a_request_is_proposed_again_fails_it() -> None:
    bench = Bench()
    machine = bench.batcher._machine = Moody()
    run = Run(request_id(1, ReplicaId(1), 7, 5), 1, 0, 4)
    answers: list[Answer] = []
    bench.batcher.submit_requests(run, [b"a one"], lambda _, given: answers.extend(given), is_retry=False)
    bench.batcher.flush()
    machine.most = 0
    bench.execute(1, POSTPONED)
    assert "footprint raised ZeroDivisionError" in str(answers[0])
    assert bench.batcher.waiting == 0
