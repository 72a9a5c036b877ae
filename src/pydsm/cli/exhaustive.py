"""`pydsm exhaustive`: checks every order of events in a small system."""

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
    recoveries: Annotated[int, typer.Option(help="Maximum number of recoveries.", min=0)] = 1,
    restarts: Annotated[int, typer.Option(help="Maximum number of restarts from records.", min=0)] = 0,
    states_max: Annotated[int, typer.Option(help="Stop after this many states.", min=1)] = 20_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> int:
    """Check every order of events, including crashes, in a small system, with the production code."""
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
        _print_outcome(world, outcome, seconds)
    return 0 if outcome.violation is None and outcome.complete else 1


def _print_outcome(world: SmallWorld, outcome: StateOutcome, seconds: float) -> None:
    print(
        f"{world.replicas} replicas, {len(world.proposers)} conflicting instances, any crashes, "
        f"{world.recoveries} recoveries, {world.restarts} restarts: {outcome.states:,} states, "
        f"{outcome.transitions:,} events, {outcome.replica_states:,} states of single replicas, {seconds:.0f} s"
    )
    if outcome.violation is not None:
        print(f"VIOLATION {outcome.violation}\nShortest sequence of events:")
        for number, line in enumerate(outcome.story, 1):
            print(f"{number:>4}  {line}")
    elif outcome.complete:
        print("Every state was checked; all invariants hold.")
    else:
        print(f"Not complete: stopped after {world.states_max:,} states; raise --states-max.", file=sys.stderr)
