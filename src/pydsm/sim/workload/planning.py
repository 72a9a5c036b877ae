"""Makes the plan of a seed: faults with their times, and the operations of clients.

Each seed leaves some kinds of faults out, so that the other kinds can run longer; half of the crashes come right after
an operation, when they are most harmful; and "duels" let leaders propose conflicting commands at the same time while
their messages reach only some replicas, which leads to the rare branches of recovery.
"""

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from pydsm.core.types.errors import UsageError
from pydsm.sim.base.plan import (
    Plan,
)
from pydsm.sim.base.settings import NEVER, draw_settings
from pydsm.sim.workload.clock_faults import WALL_CLOCK, with_wrong_clocks
from pydsm.sim.workload.planner import DRAWN, KINDS, STEPS_PER_DUEL, Planner
from pydsm.sim.workload.workload import PipelineWorkload, RegisterWorkload, Workload

STEPS = 10_000
"""Default number of events in the phase of faults."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """Parses a list of kinds like `loss,crash`; `all` and `none` are allowed. Raises UsageError for other names."""
    if text in {"all", ""}:
        return KINDS
    if text == "none":
        return ()
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"there is no fault {kind!r}: use all, none, or some of {','.join(KINDS)}")
    return kinds


def make_plan(
    seed: int,
    replicas: int,
    steps: int = STEPS,
    kinds: Sequence[str] = KINDS,
    workload: Callable[[Random], Workload] = RegisterWorkload,
) -> Plan:
    """The plan of a seed: the same arguments always give the same plan."""
    if replicas < 1:
        raise UsageError(f"a group needs at least one replica, got {replicas}")
    if steps < 1:
        raise UsageError(f"a run needs at least one step, got {steps}")
    random = Random(f"plan {seed} {replicas} {steps}")
    settings = draw_settings(random, seed, replicas, steps_max=2 * steps, horizon_us=0)
    plan = Planner(random, settings, steps, kinds, workload(random)).plan()
    return with_wrong_clocks(plan) if WALL_CLOCK in kinds else plan


def make_contending_leaders(
    seed: int, replicas: int, steps: int = STEPS, workload: Callable[[Random], Workload] = RegisterWorkload
) -> Plan:
    """The plan of a seed with duels only, one after the other, with enough time to recover after each.

    No other fault happens, so the rare branches of recovery are common in such a plan.
    """
    random = Random(f"duels {seed} {replicas} {steps}")
    settings = draw_settings(random, seed, replicas, steps_max=2 * steps, horizon_us=0)
    planner = Planner(random, settings, steps, (), workload(random))
    return planner.duels(max(1, steps // STEPS_PER_DUEL))


def make_lagging_members(
    seed: int, replicas: int, steps: int = STEPS, workload: Callable[[Random], Workload] = RegisterWorkload
) -> Plan:
    """The plan of a seed in which members are down for so long that the others compact the instances that they lack.

    Memory limits are small and checkpoints are frequent. A member that comes back has to fetch a snapshot in many
    pieces, while other faults happen, replicas that have the snapshot crash, and newer snapshots replace it.
    """
    random = Random(f"laggards {seed} {replicas} {steps}")
    settings = msgspec.structs.replace(
        draw_settings(random, seed, replicas, steps_max=2 * steps, horizon_us=0),
        window_bytes_max=random.choice([1, 3000, 10_000, 30_000]),
        checkpoint_instances=random.choice([2, 4, 8, 15]),
        checkpoint_ticks=NEVER,
        fetch_ticks=random.choice([30, 100, 500]),
        piece_bytes=random.choice([100, 200, 1000]),
        damaged_pieces=random.choice([0.0, 0.0, 0.02, 0.1]),
    )
    kinds = DRAWN if random.random() < 0.5 else random.sample(DRAWN, 2)
    return with_wrong_clocks(Planner(random, settings, steps, kinds, workload(random)).laggards())


def make_pipelines(
    seed: int, replicas: int, steps: int = STEPS, workload: Callable[[Random], Workload] = PipelineWorkload
) -> Plan:
    """The plan of a seed with clients that send several commands in a row and rely on their order.

    They use sessions, or connections without ids. Duels turn some of their commands into nops; then the replicas
    propose the commands again automatically, or the clients send them again through any replica.
    """
    random = Random(f"pipelines {seed} {replicas} {steps}")
    settings = msgspec.structs.replace(
        draw_settings(random, seed, replicas, steps_max=2 * steps, horizon_us=0),
        pipelined=random.choice([2, 4, 16]),
        connections=seed % 3 == 0,
        proposals_max=random.choice([1, 2, 5]),
        pipeline_instances_max=random.choice([4, 16, 64]),
        checkpoint_instances=random.choice([4, 15, 60, NEVER]),
        window_bytes_max=random.choice([NEVER, NEVER, 3000]),
        fetch_ticks=random.choice([30, 100, 500]),
        retrying=seed % 3 == 1,
        doubling=seed % 6 == 4,
    )
    if settings.retrying:  # clients that never give up would wait for results that are dropped
        settings = msgspec.structs.replace(settings, session_results_bytes_max=16 << 20, results_bytes_max=128 << 20)
    return Planner(random, settings, steps, KINDS, workload(random)).pipelines()


def make_put_backs(
    seed: int, replicas: int, steps: int = STEPS, workload: Callable[[Random], Workload] = RegisterWorkload
) -> Plan:
    """The plan of a seed in which disks are replaced by older copies, while other faults happen.

    Replicas ask their peers at each start, so a process on an older copy is refused, and any other process is not.
    """
    random = Random(f"put-backs {seed} {replicas} {steps}")
    settings = msgspec.structs.replace(
        draw_settings(random, seed, replicas, steps_max=2 * steps, horizon_us=0), starts_checked=True
    )
    kinds = random.sample([kind for kind in KINDS if kind != "clock"], 3)
    return Planner(random, settings, steps, kinds, workload(random)).put_backs()
