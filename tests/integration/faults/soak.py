"""Runs real processes under random faults for a given time: `python -m tests.integration.faults.soak`.

Each round is a new group of three or five, with faults that are drawn from its seed. Every other group has a small
memory window, so that a replica that was down fetches a snapshot. A round that fails ends the search with status 1,
and the history of its clients is saved in a file. The same seed gives the same faults again, but not the same timing:
processes, disks and sockets are real.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydsm.core.types.errors import PyDSMError
from pydsm.sim.checkers.linearizability import Linearizable
from tests.integration.faults.clients import Ledger
from tests.integration.faults.faults import plan
from tests.integration.faults.run import SHORT_MEMORY, run

FAULTS_EACH = 6
PAUSE_SECONDS_MAX = 10.0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def round_of(seed: int, faults: int, seconds_max: float) -> bool:
    """Run one group. Returns whether it was correct."""
    replicas = 5 if seed % 3 == 0 else 3
    again = f"python -m tests.integration.faults.soak --rounds 1 --seed {seed}"
    again += f" --faults {faults} --pause-seconds {seconds_max:g}"
    _say(f"seed {seed}: {replicas} replicas")
    ledger = Ledger()
    with tempfile.TemporaryDirectory(prefix="pydsm-faults-") as directory:
        try:
            report = await run(
                replicas,
                plan(seed, replicas, faults, seconds_max),
                Path(directory),
                seed=seed,
                options=SHORT_MEMORY if seed % 2 else (),
                say=lambda text: _say(f"  {text}"),
                ledger=ledger,
            )
        except (AssertionError, PyDSMError, OSError) as error:
            _say_last_words(Path(directory))
            _say(f"seed {seed}: WRONG: {type(error).__name__}: {error}")
            return _keep(ledger, seed, again)
    _say(f"seed {seed}: {report}")
    return isinstance(report.verdict, Linearizable) or _keep(ledger, seed, again)


def _say_last_words(directory: Path) -> None:
    for log in sorted(directory.glob("*.log")):
        _say(f"  {log.name}: ... {log.read_text(errors='replace')[-600:].strip()}")


def _keep(ledger: Ledger, seed: int, again: str) -> bool:
    path = Path(f"faults-{seed}.history")
    path.write_text("".join(f"{call}\n" for call in ledger.history.calls), encoding="utf-8")
    _say(f"what the clients saw is in {path}; the same faults again: {again}")
    return False


def main(arguments: Sequence[str]) -> int:
    """Returns exit status 1 if a round failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.faults.soak", description="Real processes under random faults."
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="how long to go on (15)")
    parser.add_argument("--rounds", type=int, default=1 << 30, help="groups at most (no limit)")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000, help="of the first group (the time)")
    parser.add_argument("--faults", type=int, default=FAULTS_EACH, help=f"faults of each group ({FAULTS_EACH})")
    parser.add_argument(
        "--pause-seconds", type=float, default=PAUSE_SECONDS_MAX, help=f"longest fault ({PAUSE_SECONDS_MAX:g})"
    )
    options = parser.parse_args(arguments)
    ends, done = time.monotonic() + 60 * options.minutes, 0
    while done < options.rounds and (not done or time.monotonic() < ends):
        if not asyncio.run(round_of(options.seed + done, options.faults, options.pause_seconds)):
            return 1
        done += 1
    _say(
        f"{done} groups under {done * options.faults} faults: every history is linearizable, and every group recovered"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
