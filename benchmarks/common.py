"""Shared by all scripts: progress on standard error, the table on standard output, and one line for a failure."""

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from pydsm.bench.measure import ProgressCallback
from pydsm.bench.recording import Recording
from pydsm.bench.results import Results
from pydsm.bench.view import console_for, progress, show, show_machine
from pydsm.cli.loop import run
from pydsm.core.types.errors import PyDSMError, UsageError

Work = Callable[[Recording, ProgressCallback], Awaitable[None]]


def record(script: str, arguments: Sequence[str], path: Path | None, work: Work) -> Results:
    """Run the work, and return its results; also write them to the file if one is given."""
    recording = Recording(f"python -m benchmarks.{script} {shlex.join(arguments)}".strip(), path)

    async def main() -> int:
        with progress(sys.stderr) as on_progress:
            await work(recording, on_progress)
        return 0

    run(main())
    return recording.finish()


def recorded(script: str, arguments: Sequence[str], path: Path | None, work: Work) -> int:
    """Run the work and print its results. Returns the exit status."""

    def action() -> int:
        results = record(script, arguments, path, work)
        console = console_for(sys.stdout)
        show(results.measurements, console)
        show_machine(results, console)
        return 0

    return guarded(script, action)


def guarded(script: str, action: Callable[[], int]) -> int:
    """The exit status of the action; 2 for usage errors and 1 for other failures, each reported in one line."""
    try:
        return action()
    except PyDSMError as fault:
        print(f"benchmarks.{script}: {' '.join(str(fault).split())}", file=sys.stderr)
        return 2 if isinstance(fault, UsageError) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
