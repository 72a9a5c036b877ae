"""A replica that was down for too long rejoins with a peer's snapshot, despite crashes and damage meanwhile.

"A member that is down holds the window back only up to a limit; past that it will need a snapshot"
(docs/reference/protocol.md, section 6).
"""

import re
from pathlib import Path

import aiohttp

from pydsm.bench.resp import ask, encode_command
from pydsm.cli.serve import Storage
from tests.integration.faults.group import WiredGroup
from tests.integration.faults.wires import Cut
from tests.integration.groups import Load, counter, load
from tests.waiting import eventually, eventually_told

OPTIONS = ("--checkpoint-instances", "50", "--window-bytes", "1000000")
"""A window of about 900 instances, a second of the load: whoever is slower than that would be forgotten once more."""
VALUE_BYTES, KEYS, WRITES = 2048, 128, 32
"""Of each value, keys of each write, and writes: 8 MB in 8 chunks."""
PIECES_BYTES, SOME_BYTES = 5 << 20, 2 << 20
"""What comes before a source falls silent: less than the snapshot, and some pieces more than the other messages that
were waiting for a replica that was away. And how much of that must have come, to have a whole chunk in it."""
AWAY = 2
FETCHES = "fetching the snapshot of checkpoint"
INSTALLED = "is installed; the replica restarts from it"
DEADLINE_SECONDS = 60


class Group(WiredGroup):
    """Three replicas with a small memory window. One of them can be started later."""

    def __init__(self, directory: Path, *, missing: bool = False) -> None:
        super().__init__(3, directory, Storage.SQLITE, *OPTIONS)
        self.missing = missing

    async def __aenter__(self) -> "Group":
        await super().__aenter__()
        self.missing = False
        return self

    async def start(self, replica: int) -> None:
        """See `LocalGroup`."""
        if not (self.missing and replica == AWAY):
            await super().start(replica)

    def log(self) -> str:
        """The log of the replica that was down."""
        return self.members[AWAY].log.read_text()

    def fetched_numbers(self) -> list[int]:
        """The checkpoints whose snapshots it has begun to fetch."""
        return [int(number) for number in re.findall(rf"{FETCHES} (\d+),", self.log())]

    async def ask(self, path: str) -> str:
        """The body at its HTTP port; empty while the port is closed, between two starts."""
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"http://{self.http[AWAY]}{path}") as answer:
                    return await answer.text()
            except aiohttp.ClientError:
                return ""

    async def is_ready(self) -> bool:
        """Whether it is ready for clients."""
        return await self.ask("/ready") == "ready\n"

    async def bytes_here(self) -> int:
        """Bytes of a snapshot that it has fetched, by its own report; 0 if it fetches none."""
        found = re.search(
            r"it fetches the snapshot of checkpoint \d+, ([\d,]+) of [\d,]+ bytes", await self.ask("/ready")
        )
        return int(found[1].replace(",", "")) if found else 0

    async def come_back(self) -> None:
        """Wait until it has installed a snapshot, and serves."""
        await eventually(lambda: INSTALLED in self.log(), "the snapshot is installed", DEADLINE_SECONDS)
        await eventually_told(self.is_ready, "the replica is ready", DEADLINE_SECONDS)


def written(number: int) -> dict[bytes, bytes]:
    """The value of the write with this number."""
    return {b"key %d.%d" % (number, key): b"%06d.%08d " % (number, key) * (VALUE_BYTES // 16) for key in range(KEYS)}


async def write(group: Group, first: int, last: int) -> None:
    """Send large writes, each in a separate instance."""
    for number in range(first, last):
        words = [word for item in written(number).items() for word in item]
        assert await ask(group.redis[0], encode_command(b"MSET", *words)) == [b"OK"]


async def check(group: Group) -> None:
    """Check that the replica that was down has all writes, and accepts new ones."""
    for number in range(WRITES):
        values = written(number)
        assert await ask(group.redis[AWAY], encode_command(b"MGET", *values)) == [list(values.values())]
    assert await ask(group.redis[AWAY], encode_command(b"INCR", b"visits")) == [1]
    assert await ask(group.redis[1], encode_command(b"GET", b"visits")) == [b"1"]


async def forgets(group: Group, instances: int, *replicas: int) -> None:
    """Write until these replicas have purged more than this number of instances."""

    async def forgotten() -> bool:
        await take_turns(group)
        return min([await counter(group, replica, "purged_instances") for replica in replicas]) > instances

    await eventually_told(forgotten, f"{replicas} have purged {instances} instances", DEADLINE_SECONDS)


async def take_turns(group: Group) -> None:
    """Write some instances at each replica."""
    for _ in range(20):
        await ask(group.redis[0], encode_command(b"INCR", b"turns"))


async def left_behind(group: Group) -> None:
    """Kill the replica, and write until the others have compacted the instances that it lacks."""
    await write(group, 0, 2)
    known = await counter(group, 0, "known_instances")
    await group.kill(AWAY)
    await write(group, 2, WRITES)
    await forgets(group, known + WRITES, 0, 1)


async def forgotten_under_load(group: Group, clients: Load) -> None:
    """The same under load: the others have neither instances, nor records, nor queued messages that it lacks."""
    await write(group, 0, WRITES // 4)
    known = await counter(group, 0, "known_instances")
    while min([await counter(group, replica, "purged_instances") for replica in (0, 1)]) <= known:
        await clients.more_answers(200, through=(0, 1))


async def fetching_from_the_first(group: Group) -> None:
    """A part of the snapshot was fetched from the first replica, then its wire is held; the second is not connected."""
    group.cut(1, AWAY, Cut.HELD)
    group.hold_after(0, AWAY, PIECES_BYTES)
    await group.start(AWAY)

    async def some_is_here() -> bool:
        return await group.bytes_here() >= SOME_BYTES

    await eventually_told(some_is_here, "some of the snapshot is here", DEADLINE_SECONDS)
    assert INSTALLED not in group.log()


async def test_a_replica_killed_under_load_rejoins_with_a_snapshot_after_compaction(tmp_path: Path) -> None:
    async with Group(tmp_path) as group, load(group) as clients:
        await clients.more_answers(500)
        await group.kill(AWAY)
        await forgotten_under_load(group, clients)
        await group.start(AWAY)
        await group.come_back()
        assert FETCHES in group.log()
        await clients.more_answers(300, through=(AWAY,))
        executed = [await counter(group, replica, "executed") for replica in range(3)]
        assert executed[AWAY] < executed[0]
        assert await counter(group, AWAY, "snapshot") > 0
        assert "pydsm_ready 1.0" in await group.ask("/metrics")
        await clients.check()


async def test_a_replica_killed_during_a_fetch_continues_with_the_stored_part(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        await left_behind(group)
        await fetching_from_the_first(group)
        status = await group.ask("/status")
        assert '"ready":false' in status
        assert "it fetches the snapshot of checkpoint" in status
        await group.kill(AWAY)
        group.heal()
        await group.start(AWAY)
        await group.come_back()
        began_with = [int(here) for here in re.findall(rf"{FETCHES} \d+, (\d+) bytes are here", group.log())]
        assert (began_with[0], began_with[-1] > SOME_BYTES / 4) == (0, True)
        await check(group)


async def test_a_source_killed_during_a_transfer_only_delays_it(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        await left_behind(group)
        await fetching_from_the_first(group)
        await group.kill(0)
        group.heal()
        await group.come_back()
        await check(group)


async def test_a_new_replica_joins_with_a_snapshot_after_many_checkpoints(
    tmp_path: Path,
) -> None:
    async with Group(tmp_path, missing=True) as group:
        await write(group, 0, WRITES)
        await forgets(group, WRITES, 0, 1)
        assert await counter(group, 0, "checkpoint") > 1
        await group.start(AWAY)
        await group.come_back()
        await check(group)


def damage_the_end_of(snapshot: Path) -> None:
    """Damage the end of the snapshot, behind the part that was sent."""
    place = snapshot.stat().st_size * 7 // 8
    with snapshot.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


async def test_a_snapshot_damaged_at_its_source_only_delays_the_transfer(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        await left_behind(group)
        await fetching_from_the_first(group)
        damage_the_end_of(group.members[0].data / "snapshots" / f"{group.fetched_numbers()[-1]:012}.snapshot")
        group.heal_wire(0, AWAY)
        damaged = "is damaged, asking another peer: a checksum differs"
        await eventually(lambda: damaged in group.log(), "the damage is found", DEADLINE_SECONDS)
        group.heal()

        async def installed() -> bool:
            await take_turns(group)  # the second may have another snapshot, and no reason to take a newer one
            return INSTALLED in group.log()

        await eventually_told(installed, "another snapshot is installed", DEADLINE_SECONDS)
        await group.come_back()
        await check(group)
