"""A result file in the making: describes the machine, takes the yardsticks before and after, and writes."""

from pathlib import Path

from pydsm.bench.machine import Calibration, calibrate, describe
from pydsm.bench.results import Measurement, Results, check_writable, write


class Recording:
    """Make it before the first measurement; whatever is added is in the file at once, so that a stop loses nothing.

    Raises UsageError for a file that could not be written.
    """

    def __init__(self, command: str, path: Path | None = None) -> None:
        if path is not None:
            check_writable(path)
        self._command = command
        self._path = path
        self._machine = describe()
        self._yardsticks: list[Calibration] = [calibrate()]
        self._measurements: list[Measurement] = []

    def add(self, *measurements: Measurement) -> None:
        """Note them. Raises OperationalError when the file cannot be written."""
        self._measurements += measurements
        if self._path is not None:
            write(self._path, self.results())

    def finish(self) -> Results:
        """Take the yardsticks again, and write for the last time."""
        self._yardsticks.append(calibrate())
        results = self.results()
        if self._path is not None:
            write(self._path, results)
        return results

    def results(self) -> Results:
        """As far as it is."""
        return Results(self._command, self._machine, list(self._yardsticks), list(self._measurements))
