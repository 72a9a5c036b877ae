"""Wrong clocks for a plan: which replicas have them, and when they jump, by how much, and how fast they run.

At most f clocks of a plan are wrong, each by more than the duration of a run. They are drawn from a separate random
stream, so that the rest of a plan is the same with and without them.
"""

from random import Random

import msgspec

from pydsm.core.types.quorums import quorums
from pydsm.sim.base.plan import ClockJump, Fault, Plan
from pydsm.sim.base.settings import RIGHT_MS_MAX

WALL_CLOCK = "wall-clock"
"""The kind of fault, as in `pydsm simulate --faults`."""

_SHARE = 0.4
_HOUR_MS = 3_600_000


def with_wrong_clocks(plan: Plan) -> Plan:
    """The plan, with wrong clocks in some seeds. Time limits are short in these seeds, so that they are reached."""
    settings = plan.settings
    random = Random(f"clocks {settings.seed} {settings.replicas} {settings.steps_max}")
    spare = quorums(settings.replicas).f
    if not spare or random.random() >= _SHARE:
        return plan
    faults: list[Fault] = list(plan.faults)
    for replica in random.sample(range(settings.replicas), random.randint(1, spare)):
        at_us = 0 if random.random() < 0.5 else random.randrange(settings.horizon_us)
        for _ in range(random.randint(1, 4)):
            faults.append(ClockJump(at_us, replica, _offset_ms(random), random.choice([1.0, 1.0, 0.0, 0.5, 2.0])))
            at_us = min(at_us + random.randrange(1 + settings.horizon_us // 3), settings.horizon_us)
    lag_ms = random.choice([300, 1000, 4000])
    return msgspec.structs.replace(
        plan,
        settings=msgspec.structs.replace(
            settings,
            wall_offsets_ms=tuple(random.randint(-RIGHT_MS_MAX, RIGHT_MS_MAX) for _ in range(settings.replicas)),
            time_advance_ms=random.choice([lag_ms // 2, 2 * lag_ms]),
            time_lag_ms=lag_ms,
            time_distance_ms=4 * lag_ms + 1000,
        ),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_us)),
    )


def _offset_ms(random: Random) -> int:
    """An offset of hours ahead or behind, or sometimes 0: the clock is right again for a while."""
    if random.random() < 0.2:
        return 0
    return random.choice([-1, 1, 1]) * random.choice([1, 3, 24, 200]) * _HOUR_MS
