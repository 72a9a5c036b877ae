"""What a measurement leaves behind: every run's figures in one JSON file, whose form has a version.

The form stands in docs/reference/results.md. Figures carry their unit in their names, and `better` says which way is
up, so that files can be compared without knowing what made them.
"""

import os
from pathlib import Path
from statistics import median

import msgspec

from pydsm.bench.histogram import Histogram
from pydsm.bench.machine import Calibration, Machine
from pydsm.core.types.errors import OperationalError, UsageError

FORMAT = "pydsm-bench"
VERSION = 2

Setting = dict[str, str | int | float | bool]


class BenchmarkRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run."""

    figures: dict[str, float]
    latency_us: list[tuple[int, int]] = []
    """Microseconds, and how many requests took about so long; empty where latency was not measured."""
    notes: list[str] = []
    """What a reader must know of this run."""


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Runs of one thing under one setting."""

    name: str
    """What tells it from the others in the file."""
    setting: Setting
    runs: list[BenchmarkRun]

    def values(self, figure: str) -> list[float]:
        """Of each run that has the figure."""
        return [run.figures[figure] for run in self.runs if figure in run.figures]

    def median(self, figure: str) -> float | None:
        """What counts; None where no run has the figure."""
        values = self.values(figure)
        return median(values) if values else None

    @property
    def figures(self) -> list[str]:
        """Names of what was measured, in order."""
        return list(dict.fromkeys(name for run in self.runs for name in run.figures))

    @property
    def notes(self) -> list[str]:
        """Of all runs, each once."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    @property
    def latencies(self) -> Histogram:
        """Of all runs together."""
        whole = Histogram()
        for run in self.runs:
            whole.take_in(Histogram(run.latency_us))
        return whole


class Results(msgspec.Struct, frozen=True):
    """A file."""

    command: str
    """What made it."""
    machine: Machine
    calibrations: list[Calibration]
    """The mood of the machine, before and after."""
    measurements: list[Measurement]
    format: str = FORMAT
    version: int = VERSION


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


def better(figure: str) -> int:
    """1 where more is better, -1 where less is, 0 where it is only told."""
    if figure.startswith(("generator_cores", "replicas_cores", "other_cores", "late_", "sync_", "load_")):
        return 0
    if figure.endswith(("_per_second", "_ratio")):
        return 1
    return -1 if figure.endswith(("_ms", "_us_per_command", "_bytes_per_key")) else 0


def write(path: Path, results: Results) -> None:
    """Replace the file, at once or not at all. Raises OperationalError when that fails."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        beside.replace(path)
    except OSError as error:
        raise OperationalError(
            f"cannot write the results to {path}: {error.strerror or error}; give a file in a directory that exists"
        ) from error


def check_writable(path: Path) -> None:
    """Raises UsageError if the file could surely not be written: better before an hour of work than after."""
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent} for {path.name}: make it, or give another file")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UsageError(f"{path} cannot be written: give another file")


def read(path: Path) -> Results:
    """Raises UsageError for what is not a result file, or one of another version."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}; give a file made with --out") from error
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.format == FORMAT and head.version == VERSION:
            return msgspec.json.decode(text, type=Results)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not a result file ({error}): give one made with --out") from error
    if head.format == FORMAT:
        raise UsageError(
            f"{path} has version {head.version} of the result format, this PyDSM reads version {VERSION}: measure again"
        )
    raise UsageError(f"{path} is not a result file: give one made with --out")
