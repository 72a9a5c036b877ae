"""What the scripts share: progress to standard error, the table to standard output, and one line for a failure."""

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
    """Everything that the work measures, also in the file if one is given."""
    recording = Recording(f"python -m benchmarks.{script} {shlex.join(arguments)}".strip(), path)

    async def main() -> int:
        with progress(sys.stderr) as on_progress:
            await work(recording, on_progress)
        return 0

    run(main())
    return recording.finish()


def recorded(script: str, arguments: Sequence[str], path: Path | None, work: Work) -> int:
    """Measure and show; the exit status."""

    def action() -> int:
        results = record(script, arguments, path, work)
        console = console_for(sys.stdout)
        show(results.measurements, console)
        show_machine(results, console)
        return 0

    return guarded(script, action)


def guarded(script: str, action: Callable[[], int]) -> int:
    """The exit status of the action; 2 and 1 for a caller's mistake and a failure, each told in one line."""
    try:
        return action()
    except PyDSMError as fault:
        print(f"benchmarks.{script}: {' '.join(str(fault).split())}", file=sys.stderr)
        return 2 if isinstance(fault, UsageError) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
