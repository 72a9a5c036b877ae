"""The result file of measurements: the figures of every run as JSON, in a versioned format.

The format is described in docs/reference/results.md. Figures have their units in their names, and `better` states which
direction is better, so that files can be compared without knowledge of the program that wrote them.
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
    """Pairs of microseconds and the number of requests with about this latency; empty if it was not measured."""
    notes: list[str] = []
    """Remarks that a reader of this run needs."""


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Several runs with the same setting."""

    name: str
    """The name, unique in the file."""
    setting: Setting
    runs: list[BenchmarkRun]

    def values(self, figure: str) -> list[float]:
        """The value in each run that has this figure."""
        return [run.figures[figure] for run in self.runs if figure in run.figures]

    def median(self, figure: str) -> float | None:
        """The median over the runs; None if no run has this figure."""
        values = self.values(figure)
        return median(values) if values else None

    @property
    def figures(self) -> list[str]:
        """The names of all figures, in order."""
        return list(dict.fromkeys(name for run in self.runs for name in run.figures))

    @property
    def notes(self) -> list[str]:
        """The notes of all runs, without duplicates."""
        return list(dict.fromkeys(note for run in self.runs for note in run.notes))

    @property
    def latencies(self) -> Histogram:
        """The latencies of all runs."""
        whole = Histogram()
        for run in self.runs:
            whole.merge(Histogram(run.latency_us))
        return whole


class Results(msgspec.Struct, frozen=True):
    """The content of a result file."""

    command: str
    """The command that created it."""
    machine: Machine
    calibrations: list[Calibration]
    """Calibrations of the machine, before and after the measurements."""
    measurements: list[Measurement]
    format: str = FORMAT
    version: int = VERSION


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


def better(figure: str) -> int:
    """1 if larger values are better, -1 if smaller ones are, 0 if neither is."""
    if figure.startswith(("generator_cores", "replicas_cores", "other_cores", "late_", "sync_", "load_")):
        return 0
    if figure.endswith(("_per_second", "_ratio")):
        return 1
    return -1 if figure.endswith(("_ms", "_us_per_command", "_bytes_per_key")) else 0


def write(path: Path, results: Results) -> None:
    """Replace the file atomically. Raises OperationalError if that fails."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        beside.replace(path)
    except OSError as error:
        raise OperationalError(
            f"cannot write the results to {path}: {error.strerror or error}; give a file in a directory that exists"
        ) from error


def check_writable(path: Path) -> None:
    """Raises UsageError if the file certainly cannot be written, before the measurements are made."""
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent} for {path.name}: create it, or give another file")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UsageError(f"{path} cannot be written: give another file")


def read(path: Path) -> Results:
    """Read a result file. Raises UsageError if it is not one, or has another version."""
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
