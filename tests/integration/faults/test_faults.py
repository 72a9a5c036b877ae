"""Groups of three and five under every kind of fault: linearizable, nothing lost, and recovered in time."""

from pathlib import Path

import pytest

from pydsm.cli.serve import Storage
from pydsm.sim.checkers.linearizability import Linearizable, NotLinearizable
from tests.integration.faults import run as run_module
from tests.integration.faults.faults import (
    Fault,
    Happen,
    cut_both_ways,
    cut_one_way,
    isolated,
    killed,
    killed_again_and_again,
    killed_while_cut,
    paused,
)
from tests.integration.faults.group import WiredGroup
from tests.integration.faults.run import RECOVERY_SECONDS_MAX, run
from tests.integration.faults.wires import Cut

STORIES: dict[str, tuple[int, list[tuple[tuple[str, Happen], float]]]] = {
    "crashes of three": (3, [(killed(0), 0.3), (killed(1), 0.1), (killed_again_and_again(2), 0.3)]),
    "a power cut": (3, [(killed(0, 1, 2), 0.1), (killed(0, 1, 2), 0.1)]),
    "a pause": (3, [(paused(0), 3.0)]),
    "links of three": (
        3,
        [
            (cut_one_way(0, 1, Cut.HELD), 1.0),
            (cut_both_ways(1, 2, Cut.SWALLOWED), 1.0),
            (isolated([0], Cut.RESET), 1.0),
            (killed_while_cut(2, 0, 1), 0.3),
        ],
    ),
    "five": (
        5,
        [
            (killed(0, 1), 0.3),
            (isolated([3, 4], Cut.SWALLOWED), 1.0),
            (cut_one_way(2, 0, Cut.SWALLOWED), 0.5),
            (killed(*range(5)), 0.1),
        ],
    ),
}


def faults(steps: list[tuple[tuple[str, Happen], float]]) -> list[Fault]:
    return [Fault(name, 150, seconds, happen) for (name, happen), seconds in steps]


@pytest.mark.parametrize("story", STORIES)
async def test_client_histories_are_linearizable_and_the_group_recovers_automatically(
    story: str, tmp_path: Path
) -> None:
    replicas, steps = STORIES[story]
    report = await run(replicas, faults(steps), tmp_path, seed=1)
    assert isinstance(report.verdict, Linearizable), report.verdict
    assert report.recovery_seconds < RECOVERY_SECONDS_MAX
    assert report.calls > 150 * len(steps)


# That it can fail


def amnesia() -> tuple[str, Happen]:
    """A fault: a power cut, after which the disks are empty."""

    async def happen(group: WiredGroup, seconds: float) -> None:
        for replica in range(group.size):
            await group.kill(replica)
        for replica in range(group.size):
            await group.start(replica)

    return "power cut of a group in memory", happen


async def test_a_group_that_loses_acknowledged_writes_is_detected(tmp_path: Path) -> None:
    report = await run(3, faults([(amnesia(), 0.0)]), tmp_path, seed=1, storage=Storage.MEMORY)
    assert isinstance(report.verdict, NotLinearizable)


async def test_a_group_that_does_not_recover_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def half_dead(group: WiredGroup, seconds: float) -> None:
        await group.kill(0)
        await group.kill(1)
        group.heal()  # from here on it is on its own

    monkeypatch.setattr(run_module, "RECOVERY_SECONDS_MAX", 1.0)
    with pytest.raises(AssertionError, match=r"took no write for .*(Connect|TimeoutError)"):
        await run(3, [Fault("a majority is gone for ever", 50, 0.0, half_dead)], tmp_path, seed=1)
