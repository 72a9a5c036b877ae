"""Unused results are not computed: at replicas without the client, and at a restart."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pydsm.client_protocol.answers import Answer
from pydsm.core.types.ids import ReplicaId, request_at
from pydsm.core.types.messages import Run
from pydsm.machines.base import Result
from pydsm.storage.identity import Identity
from pydsm.storage.sqlite import SqliteStore
from tests.unit.runtime.machines import Lists
from tests.unit.runtime.test_node import group
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio


class Skipping(Lists):
    """Counts the commands that were executed with results and those without."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []
        self.unread: list[bytes] = []

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `machines.base.StateMachine`."""
        self.read += commands
        return super().apply(commands, timestamp_ms)

    def apply_unread(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `machines.base.SupportsReadSkipping`."""
        self.unread += commands
        super().apply(commands, timestamp_ms)
        return [None] * len(commands)


async def test_only_the_replica_of_a_client_executes_its_reads_and_none_does_at_a_restart(tmp_path: Path) -> None:
    def store() -> SqliteStore:
        return SqliteStore(tmp_path, Identity("test", "r1", ReplicaId(0), 3))

    made: list[Skipping] = []

    def make() -> Skipping:
        made.append(Skipping())
        return made[-1]

    async with group(3, store(), make_machine=make) as nodes:
        assert await nodes.ask(0, "a one") == 1
        assert await nodes.ask(0, "a") == (b"one",)
        await eventually(lambda: all(len(machine.unread) == 2 for machine in made[1:]), "all replicas executed both")
        assert [machine.read for machine in made] == [[b"a one", b"a"], [], []]
        await nodes.nodes[0].stop()
        await nodes.start(0, store())
        await eventually(lambda: made[3].unread == [b"a one", b"a"], "it executed both again")
        assert made[3].read == []


async def test_results_that_a_session_keeps_are_computed_everywhere() -> None:
    made: list[Skipping] = []

    def make() -> Skipping:
        made.append(Skipping())
        return made[-1]

    async with group(3, make_machine=make) as nodes:
        answers: list[Answer] = []
        run = Run(request_at(nodes.nodes[1].grant().id, 1), 1)
        nodes.nodes[1].submit_requests(run, [b"k word"], lambda _, given: answers.extend(given), is_retry=False)
        await eventually(lambda: all(machine.read == [b"k word"] for machine in made), "all replicas executed it")
        assert answers == [1]
        assert not any(machine.unread for machine in made)
