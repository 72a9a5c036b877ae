"""`pydsm exhaustive`: every order of events in a small world."""

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from pydsm.core.types.errors import UsageError
from pydsm.sim.tools.exhaustive import SmallWorld, StateOutcome, StateSearch


def exhaustive(
    replicas: Annotated[int, typer.Option(help="Size of the group.", min=1, max=7)] = 3,
    proposers: Annotated[int, typer.Option(help="Replicas that propose one conflicting instance each.", min=1)] = 2,
    recoveries: Annotated[int, typer.Option(help="Recoveries that may be begun.", min=0)] = 1,
    restarts: Annotated[int, typer.Option(help="Restarts from records that may happen.", min=0)] = 0,
    states_max: Annotated[int, typer.Option(help="Give up after so many states.", min=1)] = 20_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> int:
    """Try every order of events, crashes included, in a small world, with the code that runs in production."""
    if proposers > replicas:
        raise UsageError(f"{proposers} proposers are more than {replicas} replicas: use --proposers {replicas}")
    world = SmallWorld(replicas, tuple(range(proposers)), recoveries, (0,), restarts, states_max)
    began = time.monotonic()
    console = Console(stderr=True)

    def report(states: int, waiting: int) -> None:
        console.print(f"{states:>12,} states seen, {waiting:,} still to explore, {time.monotonic() - began:.0f} s")

    outcome = StateSearch(world).run(None if as_json else report)
    seconds = time.monotonic() - began
    if as_json:
        print(json.dumps({"world": asdict(world), "outcome": asdict(outcome), "seconds": round(seconds, 1)}))
    else:
        _tell(world, outcome, seconds)
    return 0 if outcome.violation is None and outcome.complete else 1


def _tell(world: SmallWorld, outcome: StateOutcome, seconds: float) -> None:
    print(
        f"{world.replicas} replicas, {len(world.proposers)} conflicting instances, any crashes, "
        f"{world.recoveries} recoveries, {world.restarts} restarts: {outcome.states:,} states, "
        f"{outcome.transitions:,} events, {outcome.replica_states:,} states of single replicas, {seconds:.0f} s"
    )
    if outcome.violation is not None:
        print(f"VIOLATION {outcome.violation}\nThe shortest way there:")
        for number, line in enumerate(outcome.story, 1):
            print(f"{number:>4}  {line}")
    elif outcome.complete:
        print("Every state was seen; no invariant is broken in any of them.")
    else:
        print(f"Not complete: gave up after {world.states_max:,} states; raise --states-max.", file=sys.stderr)
