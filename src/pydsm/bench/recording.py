"""Writes a result file: the machine, its calibration before and after, and the measurements."""

from pathlib import Path

from pydsm.bench.machine import Calibration, calibrate, describe
from pydsm.bench.results import Measurement, Results, check_writable, write


class Recording:
    """Records measurements. Create it before the first one. Each addition is written to the file immediately.

    Raises UsageError if the file cannot be written.
    """

    def __init__(self, command: str, path: Path | None = None) -> None:
        if path is not None:
            check_writable(path)
        self._command = command
        self._path = path
        self._machine = describe()
        self._calibrations: list[Calibration] = [calibrate()]
        self._measurements: list[Measurement] = []

    def add(self, *measurements: Measurement) -> None:
        """Add measurements. Raises OperationalError if the file cannot be written."""
        self._measurements += measurements
        if self._path is not None:
            write(self._path, self.results())

    def finish(self) -> Results:
        """Calibrate again, and write the file for the last time."""
        self._calibrations.append(calibrate())
        results = self.results()
        if self._path is not None:
            write(self._path, results)
        return results

    def results(self) -> Results:
        """The results so far."""
        return Results(self._command, self._machine, list(self._calibrations), list(self._measurements))
