"""Describes the machine of a measurement in the result file, with two calibration figures for its load.

Shared machines vary by a third over time. The calibration, a fixed piece of Python and a sync of the disk, is measured
at the beginning and at the end, so that a comparison can distinguish a faster program from a less loaded machine.
"""

import os
import platform
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import pydsm
from pydsm.bench.processes import cores
from pydsm.storage.sync_cost import sync_seconds

_LOOP_TURNS = 100_000
_LOOP_TIMES = 5


class Calibration(msgspec.Struct, frozen=True):
    """The speed of the machine at one time."""

    at: str
    """Time in ISO 8601, UTC."""
    python_loop_ms: float
    """Duration of a fixed piece of Python: the best of five."""
    sync_ms: float
    """Time to append 4 KiB to a file and sync it, in the directory for temporary files: the median of fifty."""
    load_average: float
    """Load average of the last minute."""


class Machine(msgspec.Struct, frozen=True):
    """The properties of the machine that do not change."""

    cpu: str
    cores: int
    memory_gib: float | None
    system: str
    """The kernel and its version."""
    python: str
    pydsm: str
    commit: str | None
    """The commit of the source, with `-dirty` if it was changed; None if PyDSM was installed without its history."""


def describe() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu(),
        cores=cores(),
        memory_gib=_memory_gib(),
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        pydsm=pydsm.__version__,
        commit=_commit(Path(pydsm.__file__).parent),
    )


def calibrate() -> Calibration:
    """Measure for about 0.1 s. Raises OperationalError if no temporary file can be written."""
    return Calibration(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        python_loop_ms=1000 * min(_loop_seconds() for _ in range(_LOOP_TIMES)),
        sync_ms=1000 * sync_seconds(Path(tempfile.gettempdir())),
        load_average=os.getloadavg()[0],
    )


def _loop_seconds() -> float:
    before, seen = time.perf_counter(), {}
    for number in range(_LOOP_TURNS):
        seen[number & 1023] = number
    return time.perf_counter() - before


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _commit(package: Path) -> str | None:
    """The commit; None unless git tracks this package, which may be installed inside another repository."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(package, "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*")


def _git(directory: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ("git", "-C", str(directory), *words), capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
