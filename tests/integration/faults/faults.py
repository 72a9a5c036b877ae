"""Faults for a real group, chosen by a seed. Each has a start and an end, after which the group is healthy again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from tests.integration.faults.group import WiredGroup
from tests.integration.faults.wires import Cut

Happen = Callable[[WiredGroup, float], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One fault. The group answers before it begins; it lasts for `seconds`."""

    name: str
    answers: int
    seconds: float
    happen: Happen

    def __str__(self) -> str:
        return f"after {self.answers} more answers: {self.name}, for {self.seconds:.1f} s"


def killed(*victims: int) -> tuple[str, Happen]:
    """SIGKILL, and a restart."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        await asyncio.gather(*(group.kill(victim) for victim in victims))
        await asyncio.sleep(seconds)
        await asyncio.gather(*(group.start(victim) for victim in victims))

    return f"kill {_names(victims)}", happen


def killed_again_and_again(victim: int, times: int = 3) -> tuple[str, Happen]:
    """SIGKILL several times, each as soon as the replica serves."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        for _ in range(times):
            await group.kill(victim)
            await asyncio.sleep(seconds / times)
            await group.start(victim)

    return f"kill {_names([victim])} {times} times", happen


def paused(victim: int) -> tuple[str, Happen]:
    """SIGSTOP, then SIGCONT."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        group.pause(victim)
        try:
            await asyncio.sleep(seconds)
        finally:
            group.resume(victim)

    return f"pause {_names([victim])}", happen


def cut_one_way(sender: int, receiver: int, how: Cut) -> tuple[str, Happen]:
    """Messages from one replica to another are blocked, in one direction only."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        group.cut(sender, receiver, how)
        await _then_heal(group, seconds)

    return f"cut {_names([sender])} to {_names([receiver])}, {how.name.lower()}", happen


def cut_both_ways(one: int, other: int, how: Cut) -> tuple[str, Happen]:
    """Messages between two replicas are blocked in both directions."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        group.cut(one, other, how)
        group.cut(other, one, how)
        await _then_heal(group, seconds)

    return f"cut {_names([one])} and {_names([other])}, {how.name.lower()}", happen


def isolated(victims: list[int], how: Cut) -> tuple[str, Happen]:
    """Some replicas are cut off from the others."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        group.isolate(victims, how)
        await _then_heal(group, seconds)

    return f"isolate {_names(victims)}, {how.name.lower()}", happen


def killed_while_cut(victim: int, sender: int, receiver: int) -> tuple[str, Happen]:
    """A crash while another link is broken."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        group.cut(sender, receiver, Cut.SWALLOWED)
        try:
            await killed(victim)[1](group, seconds)
        finally:
            group.heal()

    return f"kill {_names([victim])} while {_names([sender])} to {_names([receiver])} is cut", happen


async def _then_heal(group: WiredGroup, seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)
    finally:
        group.heal()


def _names(replicas: tuple[int, ...] | list[int]) -> str:
    return ", ".join(f"r{replica + 1}" for replica in replicas)


def plan(seed: int, replicas: int, faults: int, seconds_max: float) -> list[Fault]:
    """This number of faults, one after the other, chosen by the seed."""
    random = Random(seed)
    return [_fault(random, replicas, seconds_max) for _ in range(faults)]


def _fault(random: Random, replicas: int, seconds_max: float) -> Fault:
    order = random.sample(range(replicas), replicas)
    minority = order[: (replicas - 1) // 2]
    how = random.choice(list(Cut))
    name, happen = random.choice(
        [
            killed(order[0]),
            killed(*minority),
            killed(*range(replicas)),
            killed_again_and_again(order[0]),
            paused(order[0]),
            cut_one_way(order[0], order[1], how),
            cut_both_ways(order[0], order[1], how),
            isolated(order[:1], how),
            isolated(minority, how),
            killed_while_cut(order[0], order[1], order[2]),
        ]
    )
    return Fault(name, random.randrange(50, 500), random.uniform(0.2, seconds_max), happen)
