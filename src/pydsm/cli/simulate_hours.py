"""`pydsm simulate --hours`: prints the sizes of a group per simulated hour, and whether they grow."""

import resource
import time

import msgspec
from rich.console import Console

from pydsm.core.types.errors import UsageError
from pydsm.sim.cluster.sizes import QUANTITIES
from pydsm.sim.tools.endurance import (
    GROWTH_MAX,
    HOUR_US,
    PEAK_GROWTH_MAX,
    WARM_UP_US,
    Endurance,
    EnduranceSample,
    endurance_settings,
)

_ROWS_MIN = 12
_HOURS_MIN = 0.3
_COLUMNS = (
    ("time", 5),
    ("instances", 12),
    ("index", 14),
    ("sessions", 9),
    ("results", 8),
    ("others", 14),
    ("records", 14),
    ("record KiB", 11),
    ("snapshots KiB", 14),
    ("executed", 9),
    ("checkpoints", 12),
    ("restarts", 9),
    ("watchers", 9),
    ("RSS MiB", 8),
    ("seconds", 8),
)


def simulate_hours(hours: float, seed: int, replicas: int, rate: float, *, as_json: bool) -> int:
    """Run and print. Returns exit status 1 if an invariant breaks, or a size grows."""
    if hours < _HOURS_MIN or not 0 < rate <= 1000 or replicas < 1:
        raise UsageError(f"--hours must be at least {_HOURS_MIN}, --rate above 0 and at most 1000, --replicas positive")
    console = Console(highlight=False, soft_wrap=True, markup=False, stderr=as_json)
    row_us = min(HOUR_US, int(hours * HOUR_US / _ROWS_MIN))
    rows: list[EnduranceSample] = []
    began = time.monotonic()

    def add_row(row: EnduranceSample) -> None:
        rows.append(row)
        console.print(_line(row, time.monotonic() - began))

    console.print(f"{replicas} replicas, {rate:g} requests per second, seed {seed}: medians (maxima), all replicas")
    console.print(" ".join(name.rjust(width) for name, width in _COLUMNS))
    day = Endurance(endurance_settings(seed, replicas, hours), rate, row_us, add_row)
    run = day.run()
    grown = day.samples.grown()
    counts = run.counts
    console.print(
        f"{counts.virtual_ms / 3_600_000:.2f} simulated hours in {time.monotonic() - began:.0f} s: "
        f"{counts.steps:,} steps, {counts.calls_done:,} requests, {counts.crashes} crashes, "
        f"{counts.snapshots_damaged} damaged snapshots, "
        f"{counts.cycles:,} checks of the memory bound"
    )
    if run.finding is not None:
        console.print(f"VIOLATION {run.finding.invariant}: {run.finding.what}")
    else:
        console.print("every invariant held")
    for line in grown:
        console.print(f"! {line}")
    console.print(
        f"{'NOT FLAT' if grown else 'flat'} after a warm-up of {WARM_UP_US // 60_000_000} minutes: medians of the "
        f"last third may be {GROWTH_MAX:g} times those of the first, and maxima {PEAK_GROWTH_MAX:g} times"
    )
    if as_json:
        violation = None if run.finding is None else {"invariant": run.finding.invariant, "what": run.finding.what}
        data = {"rows": rows, "flat": not grown, "grown": grown, "violation": violation}
        print(msgspec.json.format(msgspec.json.encode(data), indent=1).decode())
    return 1 if grown or run.finding is not None else 0


def _line(row: EnduranceSample, seconds: float) -> str:
    scale = {"record_bytes": 1024, "snapshot_bytes": 1024}
    cells = [f"{row.until_us // 3_600_000_000}:{row.until_us // 60_000_000 % 60:02}"]
    for name in QUANTITIES:
        by = scale.get(name, 1)
        middle, peak = f"{row.medians[name] // by:,}", f" ({row.peaks[name] // by:,})"
        cells.append(middle if name in {"sessions", "results"} else middle + peak)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    cells += [f"{number:,}" for number in (row.executed, row.checkpoints, row.restarts, row.oracle, rss, int(seconds))]
    return " ".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
