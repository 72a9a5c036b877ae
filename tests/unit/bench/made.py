"""Result files for tests."""

from collections.abc import Sequence

from pydsm.bench.machine import Calibration, Machine
from pydsm.bench.results import BenchmarkRun, Measurement, Results, Setting


def machine(cpu: str = "a processor") -> Machine:
    """The description of a machine."""
    return Machine(cpu, 2, 4.0, "Linux 6", "CPython 3.11", "0.1.0", None)


def measurement(name: str, figure: str, values: Sequence[float], setting: Setting | None = None) -> Measurement:
    """A measurement of one figure, with these runs."""
    return Measurement(name, setting or {}, [BenchmarkRun({figure: value}) for value in values])


def results(*measurements: Measurement, cpu: str = "a processor", loop_ms: float = 3.0) -> Results:
    """The content of a result file."""
    calibration = Calibration("2025-01-01T00:00:00+00:00", loop_ms, 0.2, 0.5)
    return Results("pydsm bench", machine(cpu), [calibration, calibration], list(measurements))
