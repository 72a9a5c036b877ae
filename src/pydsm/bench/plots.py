"""Plots result files: one plot of each kind for which the measurements have data. Needs the `plots` extra."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydsm.bench.results import Measurement
from pydsm.core.types.errors import OperationalError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVES_MAX = 10
_SIZE_INCHES = (8.0, 5.0)
_DOTS_PER_INCH = 120

Curve = tuple[str, list[Measurement]]
"""The common setting of a curve, and its measurements in order."""


def can_plot() -> bool:
    """Whether the `plots` extra is installed."""
    return find_spec("matplotlib") is not None


def check_can_plot() -> None:
    """Raises UsageError if the extra is missing."""
    if not can_plot():
        raise UsageError("plots need the plots extra: pip install 'pydsm-epaxos[plots]'")


def plot(measurements: Sequence[Measurement], directory: Path) -> list[Path]:
    """Write all possible plots to the directory. Returns the files, which may be none.

    Raises UsageError if the extra is missing, OperationalError if a file cannot be written.
    """
    check_can_plot()
    import matplotlib as mpl  # noqa: PLC0415  # an optional dependency

    mpl.use("Agg")
    made: list[Path] = []
    for name, draw in _KINDS.items():
        figure = draw(measurements)
        if figure is not None:
            made.append(_save(figure, directory / f"{name}.png"))
    return made


def _save(figure: "Figure", path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DOTS_PER_INCH, format="png")
    except OSError as error:
        raise OperationalError(
            f"cannot write the plot {path}: {error.strerror or error}; give another directory"
        ) from error
    return path


def curves(measurements: Sequence[Measurement], along: str, load: str) -> list[Curve]:
    """Measurements under this load that differ in one setting only, in order of it; a curve has two or more.

    The number of requests does not separate curves, since slow settings get fewer requests.
    """
    rest: dict[tuple[tuple[str, object], ...], list[Measurement]] = {}
    for each in measurements:
        if each.setting.get("load") == load and along in each.setting:
            same = tuple(
                sorted((name, value) for name, value in each.setting.items() if name not in (along, "requests"))
            )
            rest.setdefault(same, []).append(each)
    found = [(dict(same), line) for same, line in rest.items() if len({each.setting[along] for each in line}) > 1]
    labels = _labels([same for same, _ in found])
    return [
        (label, sorted(line, key=lambda each: float(each.setting[along])))
        for label, (_, line) in zip(labels, found, strict=True)
    ][:_CURVES_MAX]


def _labels(settings: Sequence[dict[str, object]]) -> list[str]:
    """For each curve, the settings in which the curves differ, and always the number of replicas and the storage."""
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    differ = [name for name in names if len({setting.get(name) for setting in settings}) > 1]
    shown = ["replicas", "storage", *(name for name in differ if name not in ("replicas", "storage"))]
    return [", ".join(_words(name, setting[name]) for name in shown if name in setting) for setting in settings]


def _words(name: str, value: object) -> str:
    match name:
        case "replicas":
            return f"{value} replicas"
        case "storage":
            return "SQLite, full sync" if value == "sqlite" else str(value)
        case "thrifty":
            return "thrifty" if value else "not thrifty"
        case "conflict" | "reads":
            return f"{100 * float(str(value)):g} % {'conflicts' if name == 'conflict' else 'reads'}"
        case "value_bytes":
            return f"{value} byte values"
        case _:
            return f"{name.replace('_', ' ')} {value}"


def _new_figure(title: str) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _medians(line: Sequence[Measurement], figure: str) -> list[float]:
    return [each.median(figure) or 0.0 for each in line]


def _with_spread(axes: "Axes", x: Sequence[float], line: Sequence[Measurement], figure: str, label: str) -> None:
    """Plot medians, with the minimum and the maximum of the runs as bars."""
    middle = _medians(line, figure)
    below = [value - min(each.values(figure)) for value, each in zip(middle, line, strict=True)]
    above = [max(each.values(figure)) - value for value, each in zip(middle, line, strict=True)]
    axes.errorbar(x, middle, yerr=[below, above], marker="o", capsize=3, label=label)


def _thousands(axes: "Axes", *, x: bool = False, y: bool = False) -> None:
    for axis, wanted in ((axes.xaxis, x), (axes.yaxis, y)):
        if wanted:
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def latency_by_throughput(measurements: Sequence[Measurement]) -> "Figure | None":
    """Open loop at rising rates: latency by throughput."""
    found = curves(measurements, "rate", "rate")
    if not found:
        return None
    figure, axes = _new_figure("latency at a fixed rate, from the time at which a request was due")
    for label, line in found:
        x = _medians(line, "commands_per_second")
        (drawn,) = axes.plot(x, _medians(line, "p50_ms"), marker="o", label=f"{label}: p50")
        axes.plot(x, _medians(line, "p99_ms"), marker="s", ls="--", color=drawn.get_color(), label=f"{label}: p99")
    axes.set(xlabel="commands answered per second", ylabel="milliseconds", yscale="log", xscale="log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _thousands(axes, x=True)
    axes.legend(fontsize="small")
    return figure


def latency_cdf(measurements: Sequence[Measurement]) -> "Figure | None":
    """The share of requests answered within a time; the axis is stretched for the slow ones."""
    lines = [each for each in measurements if each.latencies.total]
    lines = lines[:: -(-len(lines) // _CURVES_MAX) or 1]
    if not lines:
        return None
    figure, axes = _new_figure("share of requests answered within a time")
    for each in lines:
        total, seen = each.latencies.total, 0
        x: list[float] = []
        y: list[float] = []
        for microseconds, count in each.latencies.counts:
            seen += count
            x.append(microseconds / 1000)
            y.append(max(1 - seen / total, 0.1 / total))
        axes.step(x, y, where="post", label=each.name, ls="--" if each.setting.get("storage") == "sqlite" else "-")
    axes.set(xlabel="milliseconds", ylabel="share of requests answered", xscale="log", yscale="log", ylim=(1, 0.0008))
    axes.set_yticks([1, 0.5, 0.1, 0.01, 0.001], ["0 %", "50 %", "90 %", "99 %", "99.9 %"])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(fontsize="small", loc="upper left")
    return figure


def throughput_by_conflict(measurements: Sequence[Measurement]) -> "Figure | None":
    """Throughput by the share of writes to one hot key."""
    found = curves(measurements, "conflict", "flood")
    if not found:
        return None
    figure, axes = _new_figure("throughput by the share of writes to one key")
    for label, line in found:
        _with_spread(axes, [100 * float(each.setting["conflict"]) for each in line], line, "commands_per_second", label)
    axes.set(xlabel="% of writes on the hot key", ylabel="commands per second")
    axes.set_xscale("symlog", linthresh=1)
    ticks = sorted({100 * float(each.setting["conflict"]) for _, line in found for each in line})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    _thousands(axes, y=True)
    axes.legend(fontsize="small")
    return figure


def throughput_by_replicas(measurements: Sequence[Measurement]) -> "Figure | None":
    """Throughput and processor time by the number of replicas, which share the cores."""
    return _with_cpu(measurements, "replicas", "throughput and processor time by size of the group", "replicas")


def throughput_by_batch(measurements: Sequence[Measurement]) -> "Figure | None":
    """Throughput and processor time by the maximum size of a batch."""
    title = "throughput and processor time by the maximum size of a batch"
    return _with_cpu(measurements, "batch_commands_max", title, "maximum number of commands in a batch")


def _with_cpu(measurements: Sequence[Measurement], along: str, title: str, what: str) -> "Figure | None":
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import LogLocator  # noqa: PLC0415

    found = curves(measurements, along, "flood")
    if not found:
        return None
    figure = Figure(figsize=(_SIZE_INCHES[0] * 1.35, _SIZE_INCHES[1]), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    values = sorted({float(each.setting[along]) for _, line in found for each in line})
    wide = values[-1] / values[0] > 20
    for axes, name, ylabel in (
        (left, "commands_per_second", "commands per second"),
        (right, "replicas_us_per_command", "µs of processor time per command, all replicas"),
    ):
        for label, line in found:
            if all(each.values(name) for each in line):
                _with_spread(axes, [float(each.setting[along]) for each in line], line, name, label)
        axes.set(xlabel=what, ylabel=ylabel)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if wide:
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    left.legend(fontsize="small")
    return figure


_KINDS: dict[str, Callable[[Sequence[Measurement]], "Figure | None"]] = {
    "latency-by-throughput": latency_by_throughput,
    "latency-cdf": latency_cdf,
    "throughput-by-conflict": throughput_by_conflict,
    "throughput-by-replicas": throughput_by_replicas,
    "throughput-by-batch": throughput_by_batch,
}
