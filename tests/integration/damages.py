"""Damages each file of a data directory in several ways, and checks how a group of three handles it.

    python -m tests.integration.damages --count 200

A replica that starts with a damaged directory must have all of its records, the state of the others, and take part in
new commands; or it must refuse with one line. All other outcomes are errors: wrong state, missing record, traceback.
"""

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pydsm.client_protocol.answers import Answer
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Record
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import ReplicaId
from pydsm.machines.kv import KeyValue, encode
from pydsm.runtime.components import NodeComponents
from pydsm.runtime.node import Node
from pydsm.storage.identity import Identity
from pydsm.storage.snapshots import SnapshotFiles
from pydsm.storage.sqlite import SqliteStore
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.memory import MemoryHub, MemoryTransport
from tests.waiting import eventually

REPLICAS = 3
_TOGETHER_EVERY = 4
"""Of so many damages, with one the whole group is started again; with the others, the replica alone."""


class Group:
    """Nodes in this process, each with a data directory in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hub = MemoryHub()
        self.nodes: list[Node] = []
        self.machines: list[KeyValue] = []

    async def start(self, replica: int) -> None:
        me, data = ReplicaId(replica), self.directory / str(replica)
        identity = Identity("test", f"r{replica}", me, REPLICAS)
        config = Config(me, REPLICAS, recovery_timeout_ticks=100, gossip_ticks=20, checkpoint_instances_max=10)

        def transport(incarnation: int, admit: Admit, starts: StartExchange) -> MemoryTransport:
            return MemoryTransport(LocalIdentity("test", me, REPLICAS, incarnation), self.hub, admit, starts)

        machine = KeyValue()
        store = SqliteStore(data, identity)
        node = Node(config, NodeComponents(machine, store, transport, snapshots=SnapshotFiles(data, identity)))
        self.nodes.append(node)
        self.machines.append(machine)
        try:
            await node.start()
        except BaseException:
            await node.stop(drain_seconds_max=0)
            store.close()
            raise

    async def set_many(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            command = encode([b"SET", b"%d" % (number % 40), b"%d" % number])
            self.nodes[number % len(self.nodes)].submit(command, answer.set_result)
            async with asyncio.timeout(20):
                assert await answer == "OK"

    async def agree(self) -> bytes:
        await eventually(lambda: len({one.digest() for one in self.machines}) == 1, "all have one state")
        return self.machines[0].digest()

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop(drain_seconds_max=0)


@dataclass(slots=True)
class Image:
    """Data directories of a group, and the data that the first replica must have."""

    directory: Path
    records: list[Record]
    alone: bytes
    """Digest of its state when nobody is there who tells it of the decisions that it had not written yet."""
    digest: bytes
    """That of the whole group."""


async def _settled(node: Node) -> None:
    """Wait until everything is executed that needs no peers, which takes some turns of the loop."""
    frontier, still = node.observe().frontier, 0
    while still < 50:
        await asyncio.sleep(0.01)
        now = node.observe().frontier
        frontier, still = now, still + 1 if now == frontier else 0


def _damage(data: bytes, kind: str, random: Random) -> bytes:
    size = len(data)
    block = min(random.choice((1, 64, 512, 4096)), max(1, size // 2))
    one, other = (random.randrange(max(1, size - block + 1)) for _ in range(2))
    if kind == "flip":
        at, bit = random.randrange(size), 1 << random.randrange(8)
        return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
    if kind == "zero":
        return data[:one] + bytes(len(data[one : one + block])) + data[one + block :]
    if kind == "cut":
        return data[: random.randrange(size)]
    if kind == "lengthen":
        return data + random.randbytes(block)
    changed = bytearray(data)
    changed[other : other + block] = data[one : one + block]
    if kind == "swap":
        changed[one : one + block] = data[other : other + block]
    return bytes(changed[:size])


_KINDS = ("flip", "zero", "cut", "lengthen", "swap", "double")


@dataclass(slots=True)
class Verdict:
    """The outcomes for the damages of one file."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Damages:
    """Creates a group's directories, and damages copies of them."""

    def __init__(self, place: Path, say: Callable[[str], None]) -> None:
        self._place = place
        self._say = say
        self._number = 0
        self._images: list[Image] = []
        self.verdicts: dict[str, Verdict] = {}

    async def prepare(self) -> None:
        """Create directories of killed replicas, with an older copy, and of stopped replicas."""
        source = self._place / "source"
        group = Group(source)
        for replica in range(REPLICAS):
            await group.start(replica)
        await group.set_many(0, 120)
        await eventually(lambda: int(group.nodes[0].info()["purged_instances"]) > 30, "records are purged")
        await group.agree()
        shutil.copytree(source, self._place / "older")
        await group.set_many(120, 60)
        digest = await group.agree()
        killed = self._place / "killed"
        shutil.copytree(source, killed)  # in one turn of the loop, when the threads of the disks have nothing to do
        await group.stop()
        for directory in (killed, source):
            alone = Group(shutil.copytree(directory, self._place / f"alone-{directory.name}"))
            await alone.start(0)
            await _settled(alone.nodes[0])
            await alone.stop()
            image = Image(directory, self._records(directory), alone.machines[0].digest(), digest)
            assert await self._alone(image, self._copy(image)) == "right"
            assert await self._together(image, self._copy(image)) == "right"
            self._images.append(image)

    def _records(self, image: Path) -> list[Record]:
        copy = self._place / "records"
        shutil.copytree(image / "0", copy)
        store = SqliteStore(copy, Identity("test", "r0", ReplicaId(0), REPLICAS))
        try:
            return store.load()
        finally:
            store.close()
            shutil.rmtree(copy)

    async def run(self, count: int, seed: int) -> int:
        """Try this number of damages of each file. Returns the number of wrong outcomes."""
        names = sorted({path.relative_to(one.directory / "0") for one in self._images for path in _files(one)})
        for name in names:
            random = Random(f"{seed} {_kind_of(name)} {names.index(name)}")
            verdict = self.verdicts.setdefault(str(name), Verdict())
            for number in range(count):
                await self._one(name, number, random, verdict)
            self._say(f"{name}: " + ", ".join(f"{what} {many}" for what, many in sorted(verdict.outcomes.items())))
            for line in verdict.wrong:
                self._say(f"  WRONG {line}")
        return sum(len(verdict.wrong) for verdict in self.verdicts.values())

    async def _one(self, name: Path, number: int, random: Random, verdict: Verdict) -> None:
        images = [one for one in self._images if (one.directory / "0" / name).is_file()]
        image = images[number % len(images)]
        directory = self._copy(image)
        path = directory / "0" / name
        data = path.read_bytes()
        older = self._place / "older" / "0" / name
        choice = random.randrange(len(_KINDS) * 4 + 2)
        if choice == 0:
            what = "removed"
            path.unlink()
        elif choice == 1 and older.is_file():
            what = "older"
            shutil.copy(older, path)
        else:
            what = _KINDS[choice % len(_KINDS)] if data else "lengthen"
            path.write_bytes(_damage(data, what, random))
        judge = self._together if number % _TOGETHER_EVERY == 0 else self._alone
        outcome = await self._judged(judge, image, directory)
        verdict.outcomes[outcome if outcome in ("right", "refused") else "WRONG"] += 1
        if outcome not in ("right", "refused"):
            verdict.wrong.append(f"{what}, number {number}: {outcome}")
        shutil.rmtree(directory)

    async def _judged(self, judge: Callable[[Image, Path], Awaitable[str]], image: Image, directory: Path) -> str:
        try:
            return await judge(image, directory)
        except OperationalError as fault:
            said = str(fault)
            return "refused" if "\n" not in said else f"more than one line: {said!r}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def _copy(self, image: Image) -> Path:
        self._number += 1
        return shutil.copytree(image.directory, self._place / f"copy{self._number}")

    async def _alone(self, image: Image, directory: Path) -> str:
        """Check the replica's own data, before peers can send it more."""
        identity = Identity("test", "r0", ReplicaId(0), REPLICAS)
        store = SqliteStore(directory / "0", identity)
        try:
            records = store.load()
        finally:
            store.close()
        group = Group(directory)
        try:
            await group.start(0)
            await eventually(lambda: group.machines[0].digest() == image.alone, "it has the state of before", 5)
        finally:
            await group.stop()
        if records != image.records:
            return f"{len(records)} records instead of {len(image.records)}"
        return "right"

    async def _together(self, image: Image, directory: Path) -> str:
        """Check that the replica takes part in the group, and all reach the same state."""
        group = Group(directory)
        try:
            for replica in range(REPLICAS):
                await group.start(replica)
            await eventually(lambda: group.machines[0].digest() == image.digest, "the replica has the agreed state")
            await group.set_many(1000, 6)
            await group.agree()
            failed = [node.failure.result() for node in group.nodes if node.failure.done()]
        finally:
            await group.stop()
        return "right" if not failed else f"a replica has failed: {failed}"


def _files(image: Image) -> list[Path]:
    return [path for path in (image.directory / "0").rglob("*") if path.is_file()]


def _kind_of(name: Path) -> str:
    return "snapshot" if name.suffix == ".snapshot" else name.name


async def judge(count: int, seed: int, say: Callable[[str], None]) -> int:
    """Prepare a group, and damage its files. Returns the number of wrong outcomes."""
    with tempfile.TemporaryDirectory(prefix="pydsm-damages-") as place:
        damages = Damages(Path(place), say)
        await damages.prepare()
        return await damages.run(count, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns exit status 1 if any damage led to neither a correct state nor a refusal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="damages of each file (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    logging.getLogger("pydsm").setLevel(logging.CRITICAL + 1)
    wrong = asyncio.run(judge(given.count, given.seed, lambda line: print(line, flush=True)))  # noqa: T201 - a command
    print(f"{wrong} went wrong")  # noqa: T201 - a command
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
