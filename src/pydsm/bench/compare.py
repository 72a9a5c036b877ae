"""Compares two result files, and reports changes beyond noise.

The rule: a figure has changed if its runs in the two files are separated more clearly than chance does in one case of
twenty (Mann-Whitney, two-sided, exact), and the medians differ by 5 % or more. So of twenty figures that did not
change, one may still be reported as changed; measure again before you rely on it. With three runs or fewer on a side no
separation is significant, and none is reported. The rule does not detect that the whole machine was slower: the
calibration figures show that, and are compared as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from pydsm.bench.results import Measurement, Results, better
from pydsm.bench.statistics import mann_whitney, ratio_of, smallest_p

P_MAX = 0.05
CHANGE_MIN = 0.05
_NOT_COMPARED = {"p90_ms", "p999_ms", "max_ms", "generator_us_per_command"}
"""Figures that are similar to others: they are left out, since each further comparison may be a false alarm."""


class Verdict(StrEnum):
    """The result of comparing one figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no change beyond noise"
    TOO_FEW = "too few runs to decide"


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one measurement, in both files."""

    name: str
    figure: str
    old: float
    new: float
    """Medians."""
    p: float
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """The new median divided by the old one."""
        return ratio_of(self.new, self.old)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences of the common figures, and warnings about the comparison itself."""

    differences: list[Difference]
    only_old: list[str]
    only_new: list[str]
    warnings: list[str]

    def of(self, *verdicts: Verdict) -> list[Difference]:
        """The differences with one of these verdicts."""
        return [each for each in self.differences if each.verdict in verdicts]


def compare(old: Results, new: Results) -> Comparison:
    """Compare measurements with equal names."""
    before = {each.name: each for each in old.measurements}
    after = {each.name: each for each in new.measurements}
    return Comparison(
        [one for name in before if name in after for one in _differences(before[name], after[name])],
        only_old=[name for name in before if name not in after],
        only_new=[name for name in after if name not in before],
        warnings=list(_warnings(old, new)),
    )


def _differences(old: Measurement, new: Measurement) -> Iterator[Difference]:
    for figure in old.figures:
        one, other = old.values(figure), new.values(figure)
        if better(figure) and figure not in _NOT_COMPARED and one and other:
            p = mann_whitney(one, other)
            yield Difference(old.name, figure, median(one), median(other), p, verdict(figure, one, other, p))


def verdict(figure: str, old: list[float], new: list[float], p: float) -> Verdict:
    """Apply the rule of this module to one figure."""
    if smallest_p(len(old), len(new)) >= P_MAX:
        return Verdict.TOO_FEW
    before, after = median(old), median(new)
    if p >= P_MAX or abs(after - before) < CHANGE_MIN * abs(before):
        return Verdict.SAME
    return Verdict.BETTER if (after > before) == (better(figure) > 0) else Verdict.WORSE


def _warnings(old: Results, new: Results) -> Iterator[str]:
    for field in ("cpu", "cores", "memory_gib", "system", "python"):
        before, after = getattr(old.machine, field), getattr(new.machine, field)
        if before != after:
            yield f"not the same machine: {field} was {before}, is {after}"
    for field, what in (("python_loop_ms", "a fixed piece of Python"), ("sync_ms", "a sync of the disk")):
        one = [getattr(calibration, field) for calibration in old.calibrations]
        other = [getattr(calibration, field) for calibration in new.calibrations]
        if one and other and abs(ratio_of(median(other), median(one)) - 1) >= CHANGE_MIN:
            yield (
                f"the machine itself has changed: {what} took {median(one):.3g} ms, now {median(other):.3g} ms "
                f"({ratio_of(median(other), median(one)):.2f} times)"
            )
    noisy = [
        each.name
        for results in (old, new)
        for each in results.measurements
        if any("other programs were at work" in note for note in each.notes)
    ]
    if noisy:
        yield f"other programs were at work during {len(noisy)} of the measurements"
