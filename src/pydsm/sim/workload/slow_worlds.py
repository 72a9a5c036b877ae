"""Worlds in which everything is slower than the timers of the replicas, and replicas that never restart.

Three kinds of slowness, one or more in each world: replicas so far apart that a round trip takes several times as long
as any timeout; links that carry a batch in that time; event loops that get no processor time for that long. After the
heal up to f replicas stay down, and everything that was submitted must still be decided and executed.
"""

from collections.abc import Callable
from random import Random

import msgspec

from pydsm.core.types.quorums import quorums
from pydsm.sim.base.plan import Death, Plan
from pydsm.sim.base.settings import NEVER, TICK_US, Settings, draw_settings
from pydsm.sim.workload.planner import KINDS, Planner
from pydsm.sim.workload.planning import STEPS
from pydsm.sim.workload.workload import RegisterWorkload, Workload

_TICK_PERIOD_US = 10_000

FAR, NARROW, STARVED = "far", "narrow", "starved"


def make_slow(
    seed: int, replicas: int, steps: int = STEPS, workload: Callable[[Random], Workload] = RegisterWorkload
) -> Plan:
    """The plan of a seed that is slower than every timer. The same arguments always give the same plan."""
    random = Random(f"slow {seed} {replicas} {steps}")
    drawn = draw_settings(random, seed, replicas, steps_max=2 * steps, horizon_us=0)
    slow = make_slower(drawn, random)
    # Durations of faults follow the real delays of this world, not its timers.
    usual_ticks = slow.recovery_timeout_ticks + 4 * slow.one_way_us // TICK_US
    spacious = msgspec.structs.replace(slow, recovery_timeout_ticks=usual_ticks)
    kinds = random.sample(KINDS, random.choice([0, 1, 2, 3]))
    plan = Planner(random, spacious, steps // 3, kinds, workload(random)).plan()
    settings = msgspec.structs.replace(plan.settings, recovery_timeout_ticks=slow.recovery_timeout_ticks)
    faults = (*plan.faults, *draw_deaths(random, plan))
    return Plan(settings, tuple(sorted(faults, key=lambda fault: fault.at_us)), plan.operations)


def make_slower(settings: Settings, random: Random) -> Settings:
    """The same settings with short timers, and with a network, links or loops that are slower than these timers."""
    choice = random.choice
    timeout_ticks = choice([10, 20, 40])
    slowness = random.sample([FAR, NARROW, STARVED], choice([1, 1, 2]))
    slow_us = timeout_ticks * TICK_US
    latencies_us = settings.latencies_us
    if FAR in slowness:
        way_us = int(choice([0.5, 1.5, 4, 8]) * slow_us)
        latencies_us = tuple(
            tuple(0 if one == other else int(way_us * (0.7 + 0.6 * random.random())) for other in range(len(row)))
            for one, row in enumerate(latencies_us)
        )
    starve_us = int(choice([0.5, 2, 5]) * slow_us) if STARVED in slowness else 0
    slower = msgspec.structs.replace(
        settings,
        fast_timer_ticks=choice([1, 5, 20]),
        retry_ticks=choice([5, 10, 30]),
        recovery_timeout_ticks=timeout_ticks,
        recovery_jitter_ticks=choice([1, 10]),
        backoff_ticks_max=choice([50, 200]),
        checkpoint_instances=NEVER,
        checkpoint_ticks=NEVER,
        latencies_us=latencies_us,
        spread=choice(["steady", "uniform", "uniform", "exponential"]),
        command_us=int(choice([0.3, 1, 4]) * slow_us) if NARROW in slowness else 0,
        starve_us=starve_us,
        starve_every_us=int(starve_us * choice([1.2, 2, 4])) + 2 * _TICK_PERIOD_US,  # time for at least one tick
        batch_requests_max=choice([1, 2, 4]),
        tick_period_us=_TICK_PERIOD_US,
    )
    # Clients that send again before an answer can arrive would only add load, for ever. In a group of one no message
    # travels between replicas, but each answer takes a tick.
    patience_us = choice([20, 60, 200]) * max(slower.one_way_us, _TICK_PERIOD_US)
    return msgspec.structs.replace(slower, patience_us=patience_us)


def draw_deaths(random: Random, plan: Plan) -> list[Death]:
    """Draws up to f deaths: shortly after an operation begins, or at the end of the phase of faults."""
    settings = plan.settings
    found = []
    for replica in random.sample(range(settings.replicas), random.randint(0, quorums(settings.replicas).f)):
        at_us = settings.horizon_us - 1
        mine = [operation.at_us for operation in plan.operations if operation.replica == replica]
        if mine and random.random() < 0.7:
            at_us = min(at_us, random.choice(mine[-3:]) + random.randrange(1 + 3 * settings.one_way_us))
        found.append(Death(at_us, replica))
    return found
