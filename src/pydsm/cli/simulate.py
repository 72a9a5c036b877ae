"""`pydsm simulate`: a group in a simulated world, from one seed or many, with every invariant watched."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pydsm.cli.simulate_hours import simulate_hours
from pydsm.core.types.errors import UsageError
from pydsm.sim.base.counts import Counts
from pydsm.sim.cluster.world import TraceDigest, WorldRun
from pydsm.sim.tools.endurance import RATE
from pydsm.sim.tools.search import SHRINK_SECONDS, Search, SearchReport, report
from pydsm.sim.tools.tables import exercised, plain
from pydsm.sim.workload.planning import STEPS, parse_kinds


def simulate(
    seed: Annotated[int, typer.Option(help="Decides everything; the first of --seeds.")] = 0,
    seeds: Annotated[int, typer.Option(help="How many seeds to play, one after the other.")] = 1,
    replicas: Annotated[int | None, typer.Option(help="Size of the group. [default: 3, 5, 7 ... by seed]")] = None,
    steps: Annotated[int, typer.Option(help="Events in the phase of faults, about.")] = STEPS,
    faults: Annotated[str, typer.Option(help="Kinds of faults, as in loss,crash; all; or none.")] = "all",
    duels: Annotated[
        bool, typer.Option("--duels", help="Only duels of leaders, one by one; --faults is ignored.")
    ] = False,
    laggards: Annotated[
        bool, typer.Option("--laggards", help="Members stay away until others forget what they lack.")
    ] = False,
    pipelines: Annotated[
        bool, typer.Option("--pipelines", help="Clients send many commands in a row, and rely on their order.")
    ] = False,
    adversary: Annotated[
        bool, typer.Option("--adversary", help="Short worlds; faults strike when chosen messages leave.")
    ] = False,
    slow: Annotated[
        bool, typer.Option("--slow", help="Networks, links and loops that are slower than every timer.")
    ] = False,
    put_backs: Annotated[
        bool, typer.Option("--put-backs", help="Disks are put back to older copies, and must be refused.")
    ] = False,
    hours: Annotated[
        float | None,
        typer.Option(help="In place of seeds: so many simulated hours under steady load; status 1 if anything grows."),
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests per simulated second, with --hours.")] = RATE,
    trace_digest: Annotated[bool, typer.Option("--trace-digest", help="Print a SHA-256 of all that happened.")] = False,
    out: Annotated[Path, typer.Option(help="Directory for the file of a broken run.")] = Path(),
    shrink_seconds: Annotated[float, typer.Option(help="Time for making a broken run smaller.")] = SHRINK_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> int:
    """Simulate a group under faults; exit status 1 if an invariant breaks."""
    if hours is not None:
        others = duels or laggards or pipelines or adversary or slow or put_backs
        if seeds != 1 or steps != STEPS or faults != "all" or others or trace_digest:
            raise UsageError(
                "--hours goes with --seed, --replicas, --rate and --json only: it has its own load and faults"
            )
        return simulate_hours(hours, seed, replicas or 3, rate, as_json=as_json)
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {seeds}")
    if duels + laggards + pipelines + adversary + slow + put_backs > 1:
        raise UsageError(
            "--duels, --laggards, --pipelines, --adversary, --slow and --put-backs are kinds of plans: give one of them"
        )
    search = Search(
        replicas=replicas,
        steps=steps,
        kinds=parse_kinds(faults),
        duels_only=duels,
        laggards_only=laggards,
        pipelines_only=pipelines,
        adversary_only=adversary,
        slow_only=slow,
        put_backs_only=put_backs,
    )
    search.plan(seed)
    totals = Counts()
    digests: dict[int, str] = {}
    broken: WorldRun | None = None
    with _progress(seeds) as progress:
        task = progress.add_task("seeds", total=seeds)
        for number in range(seed, seed + seeds):
            digest = TraceDigest() if trace_digest else None
            run = search.play(search.plan(number), digest)
            totals.add(run.counts)
            if digest is not None:
                digests[number] = digest.hex()
            progress.advance(task)
            if run.finding is not None:
                broken = run
                break
    found = report(search, broken, out, shrink_seconds) if broken is not None else None
    if as_json:
        _print_json(totals, digests, broken, found)
    else:
        _print_tables(totals, digests, broken, found)
    return 1 if broken is not None else 0


def _progress(seeds: int) -> Progress:
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=seeds < 2,
    )


def _print_tables(totals: Counts, digests: dict[int, str], broken: WorldRun | None, found: SearchReport | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for number, digest in digests.items():
        console.print(f"seed {number}: trace {digest}")
    console.print(exercised(totals))
    if broken is None or found is None or broken.finding is None:
        console.print(f"{totals.seeds} seeds, {totals.steps:,} steps: every invariant held")
        return
    for line in found.lines:
        console.print(line, markup=False)
    console.print()
    console.print(
        f"VIOLATION in seed {broken.plan.settings.seed}, {broken.plan.settings.replicas} replicas", style="bold"
    )
    console.print(f"{found.finding.invariant}: {found.finding.what}", markup=False)
    sizes = f"from {len(broken.plan)} to {len(found.plan)} faults and operations"
    console.print(f"made smaller {sizes} by playing {found.played} plans")
    console.print(f"play it step by step: pydsm replay {found.path}")


def _print_json(totals: Counts, digests: dict[int, str], broken: WorldRun | None, found: SearchReport | None) -> None:
    data: dict[str, object] = {"exercised": plain(totals), "violation": None}
    if digests:
        data["trace_digests"] = {str(number): digest for number, digest in digests.items()}
    if broken is not None and found is not None:
        data["violation"] = {
            "seed": broken.plan.settings.seed,
            "replicas": broken.plan.settings.replicas,
            "invariant": found.finding.invariant,
            "what": found.finding.what,
            "file": str(found.path),
            "story": found.lines,
        }
    print(msgspec.json.format(msgspec.json.encode(data), indent=1).decode())
