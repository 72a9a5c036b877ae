"""Plots a run of the demo. Needs the `plots` extra."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pydsm.cli.demo_view import DemoReport, Moment
from pydsm.core.types.errors import OperationalError, UsageError


def can_plot() -> bool:
    """Whether the `plots` extra is installed."""
    return find_spec("matplotlib") is not None


def plot(path: Path, moments: Sequence[Moment], report: DemoReport, events: Sequence[tuple[float, str]]) -> None:
    """Write a PNG: throughput over time by replica, and the latencies. `events` are seconds and descriptions.

    Raises UsageError if the extra is missing, OperationalError if the file cannot be written.
    """
    if not can_plot():
        raise UsageError("--png needs the plots extra: pip install 'pydsm-epaxos[plots]'")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    over_time, latencies = figure.subplots(1, 2, width_ratios=(3, 2))
    seconds = [moment.seconds for moment in moments]
    names = [replica.name for replica in moments[0].replicas] if moments else []
    layers = [[moment.replicas[place].commands_per_second for moment in moments] for place in range(len(names))]
    if moments:
        over_time.stackplot(seconds, layers, labels=names, alpha=0.85)
        over_time.legend(loc="lower left", ncols=len(names), fontsize="small")
    top = max((moment.commands_per_second for moment in moments), default=1.0)
    for at, what in events:
        over_time.axvline(at, color="black", linewidth=1, linestyle="--")
        over_time.annotate(what, (at, top * 1.02), rotation=90, va="top", ha="right", fontsize="small")
    over_time.set(title="commands per second, by replica", xlabel="seconds", ylim=(0, top * 1.1))
    labels = [label for label, _ in report.histogram]
    latencies.barh(labels, [count for _, count in report.histogram], color="tab:gray")
    latencies.invert_yaxis()
    latencies.set(
        title=f"latency: p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.1f} ms", xlabel="commands", xscale="log"
    )
    figure.suptitle(
        f"{report.replicas} replicas, {report.storage}, {report.clients} clients: "
        f"{report.commands_per_second:,.0f} commands/s, lost {report.lost}, wrong {report.wrong}"
    )
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise OperationalError(f"cannot write the plot to {path}: {error.strerror or error}") from error
