"""A replica that was away for too long comes back by the snapshot of another, whoever dies or is damaged meanwhile.

"A member that is down holds the window back only up to a limit; past that it will need a snapshot" (PROTOCOL 6).
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
    """Three replicas that forget soon. One of them may be there from the beginning, or not."""

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
        """What the replica that was away has said."""
        return self.members[AWAY].log.read_text()

    def fetched_numbers(self) -> list[int]:
        """Of which checkpoints it has begun to fetch the snapshot."""
        return [int(number) for number in re.findall(rf"{FETCHES} (\d+),", self.log())]

    async def ask(self, path: str) -> str:
        """What it answers at its HTTP port; nothing while that is closed, between two lives."""
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"http://{self.http[AWAY]}{path}") as answer:
                    return await answer.text()
            except aiohttp.ClientError:
                return ""

    async def is_ready(self) -> bool:
        """Whether clients may be sent to it."""
        return await self.ask("/ready") == "ready\n"

    async def bytes_here(self) -> int:
        """How much of a snapshot it has fetched, as it says itself; 0 while it fetches none."""
        found = re.search(
            r"it fetches the snapshot of checkpoint \d+, ([\d,]+) of [\d,]+ bytes", await self.ask("/ready")
        )
        return int(found[1].replace(",", "")) if found else 0

    async def come_back(self) -> None:
        """Wait until it has come by a snapshot, and serves."""
        await eventually(lambda: INSTALLED in self.log(), "the snapshot is installed", DEADLINE_SECONDS)
        await eventually_told(self.is_ready, "the replica is ready", DEADLINE_SECONDS)


def written(number: int) -> dict[bytes, bytes]:
    """What the write of this number sets."""
    return {b"key %d.%d" % (number, key): b"%06d.%08d " % (number, key) * (VALUE_BYTES // 16) for key in range(KEYS)}


async def write(group: Group, first: int, last: int) -> None:
    """Large ones, each in an instance of its own."""
    for number in range(first, last):
        words = [word for item in written(number).items() for word in item]
        assert await ask(group.redis[0], encode_command(b"MSET", *words)) == [b"OK"]


async def check(group: Group) -> None:
    """All is there, at the replica that was away, and it takes more."""
    for number in range(WRITES):
        values = written(number)
        assert await ask(group.redis[AWAY], encode_command(b"MGET", *values)) == [list(values.values())]
    assert await ask(group.redis[AWAY], encode_command(b"INCR", b"visits")) == [1]
    assert await ask(group.redis[1], encode_command(b"GET", b"visits")) == [b"1"]


async def forgets(group: Group, instances: int, *replicas: int) -> None:
    """Write until these have purged more than so many instances."""

    async def forgotten() -> bool:
        await take_turns(group)
        return min([await counter(group, replica, "purged_instances") for replica in replicas]) > instances

    await eventually_told(forgotten, f"{replicas} have purged {instances} instances", DEADLINE_SECONDS)


async def take_turns(group: Group) -> None:
    """Some more instances."""
    for _ in range(20):
        await ask(group.redis[0], encode_command(b"INCR", b"turns"))


async def left_behind(group: Group) -> None:
    """The replica is killed, and what it lacks then is forgotten by the others; they have large snapshots."""
    await write(group, 0, 2)
    known = await counter(group, 0, "known_instances")
    await group.kill(AWAY)
    await write(group, 2, WRITES)
    await forgets(group, known + WRITES, 0, 1)


async def forgotten_under_load(group: Group, clients: Load) -> None:
    """Of what the replica lacks, the others have neither instances, nor records, nor messages that wait for it."""
    await write(group, 0, WRITES // 4)
    known = await counter(group, 0, "known_instances")
    while min([await counter(group, replica, "purged_instances") for replica in (0, 1)]) <= known:
        await clients.more_answers(200, through=(0, 1))


async def fetching_from_the_first(group: Group) -> None:
    """Some of the snapshot has come, from the first replica, and no more comes; of the second nothing was heard."""
    group.cut(1, AWAY, Cut.HELD)
    group.hold_after(0, AWAY, PIECES_BYTES)
    await group.start(AWAY)

    async def some_is_here() -> bool:
        return await group.bytes_here() >= SOME_BYTES

    await eventually_told(some_is_here, "some of the snapshot is here", DEADLINE_SECONDS)
    assert INSTALLED not in group.log()


async def test_replica_killed_under_load_comes_back_by_snapshot_when_the_others_have_forgotten(tmp_path: Path) -> None:
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


async def test_replica_that_is_killed_while_it_fetches_goes_on_with_what_it_has(tmp_path: Path) -> None:
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


async def test_source_that_is_killed_while_it_sends_costs_only_time(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        await left_behind(group)
        await fetching_from_the_first(group)
        await group.kill(0)
        group.heal()
        await group.come_back()
        await check(group)


async def test_replica_that_is_started_for_the_first_time_after_many_checkpoints_comes_by_snapshot(
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
    """Behind all that has been sent."""
    place = snapshot.stat().st_size * 7 // 8
    with snapshot.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


async def test_snapshot_that_is_damaged_at_its_source_costs_only_time(tmp_path: Path) -> None:
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
