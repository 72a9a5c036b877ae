"""`pydsm simulate`: runs a simulated group for one seed or many, and checks every invariant."""

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
    seed: Annotated[int, typer.Option(help="Seed of the run; with --seeds, the first one.")] = 0,
    seeds: Annotated[int, typer.Option(help="Number of seeds to run, one after the other.")] = 1,
    replicas: Annotated[int | None, typer.Option(help="Replicas in the group. [default: 3, 5, 7 ... by seed]")] = None,
    steps: Annotated[int, typer.Option(help="Approximate number of events in the phase with faults.")] = STEPS,
    faults: Annotated[
        str, typer.Option(help="Kinds of faults, separated by commas (loss,crash), or all, or none.")
    ] = "all",
    contending_leaders: Annotated[
        bool,
        typer.Option(
            "--contending-leaders",
            help="Only conflicting commands of two leaders, one pair after the other; --faults is ignored.",
        ),
    ] = False,
    lagging_members: Annotated[
        bool,
        typer.Option("--lagging-members", help="Members stay down until the others have compacted what they miss."),
    ] = False,
    pipelines: Annotated[
        bool, typer.Option("--pipelines", help="Clients send many commands without waiting, and rely on their order.")
    ] = False,
    adversary: Annotated[
        bool, typer.Option("--adversary", help="Short runs; faults occur when chosen messages are sent.")
    ] = False,
    slow: Annotated[
        bool, typer.Option("--slow", help="Networks, links and event loops that are slower than every timer.")
    ] = False,
    put_backs: Annotated[
        bool, typer.Option("--put-backs", help="Disks are restored from older copies, which must be refused.")
    ] = False,
    hours: Annotated[
        float | None,
        typer.Option(
            help="Instead of seeds: simulate this many hours of steady load; exit status 1 if memory or disk use grows."
        ),
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests per simulated second, with --hours.")] = RATE,
    trace_digest: Annotated[
        bool, typer.Option("--trace-digest", help="Print the SHA-256 of the trace of events.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Directory for the file that describes a failed run.")] = Path(),
    shrink_seconds: Annotated[float, typer.Option(help="Seconds to spend on reducing a failed run.")] = SHRINK_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of tables.")] = False,
) -> int:
    """Simulate a group under faults; exit status 1 if an invariant breaks."""
    if hours is not None:
        others = contending_leaders or lagging_members or pipelines or adversary or slow or put_backs
        if seeds != 1 or steps != STEPS or faults != "all" or others or trace_digest:
            raise UsageError(
                "--hours allows only --seed, --replicas, --rate and --json besides it: it has its own load and faults"
            )
        return simulate_hours(hours, seed, replicas or 3, rate, as_json=as_json)
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {seeds}")
    if contending_leaders + lagging_members + pipelines + adversary + slow + put_backs > 1:
        raise UsageError(
            "--contending-leaders, --lagging-members, --pipelines, --adversary, --slow and --put-backs choose the kind "
            "of plan: give only one of them"
        )
    search = Search(
        replicas=replicas,
        steps=steps,
        kinds=parse_kinds(faults),
        duels_only=contending_leaders,
        laggards_only=lagging_members,
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
    console.print(f"reduced {sizes} by running {found.played} plans")
    console.print(f"show it step by step: pydsm replay {found.path}")


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
