"""Reports a failed run: saves it to a file that can be replayed, and selects the trace lines that matter."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.core.types.ids import InstanceId
from pydsm.sim.base import describe
from pydsm.sim.base.plan import Operation, Plan
from pydsm.sim.cluster.world import Finding

FORMAT = 1
"""Version of the file format; other versions are refused."""

REGISTERS = "registers"
"""Name of the simulator's own machine."""

_LANDMARKS = ("FAULT", "HEAL", "VIOLATION", " crashes", " starts again", "proposes ")


class SavedFailure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A failed run: its plan, and the violation that was found when it was saved."""

    format: int = FORMAT
    invariant: str
    what: str
    instances: tuple[InstanceId, ...] = ()
    step: int
    machine: str = REGISTERS
    plan: Plan


def save(path: Path, plan: Plan, finding: Finding, machine: str = REGISTERS) -> None:
    """Write a run as JSON. Raises OperationalError if the file cannot be written."""
    saved = SavedFailure(
        invariant=finding.invariant,
        what=finding.what,
        instances=finding.instances,
        step=finding.step,
        machine=machine,
        plan=plan,
    )
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(saved), indent=1) + b"\n")
    except OSError as error:
        raise OperationalError(f"{path} cannot be written: {error.strerror}; name another with --out") from error


def load(path: Path) -> SavedFailure:
    """Read a run. Raises UsageError if the file is not a saved run."""
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=SavedFailure)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not a run that `pydsm simulate` has written: {error}") from error
    if saved.format != FORMAT:
        raise UsageError(f"{path} has format {saved.format}, this PyDSM reads {FORMAT}")
    return saved


def describe_plan(plan: Plan) -> Iterator[str]:
    """Yield one line for the settings, and one for each fault and operation, in order of time."""
    settings = plan.settings
    yield (
        f"group of {settings.replicas}, faults: {len(plan.faults)}, operations: {len(plan.operations)}, "
        f"heal after {settings.horizon_us // 1000} ms; loss {settings.loss:.0%}, duplication "
        f"{settings.duplication:.0%}, relation {settings.relation}"
    )
    elements = sorted((*plan.faults, *plan.operations), key=lambda element: element.at_us)
    for element in elements:
        if isinstance(element, Operation):
            asks = f"client {element.client} asks r{element.replica} to {element.command.decode('ascii', 'replace')}"
            yield f"{describe.time(element.at_us)} {asks}"
        else:
            yield f"{describe.time(element.at_us)} {element}"


def describe_failure(lines: Sequence[str], instances: Sequence[InstanceId], lines_max: int) -> list[str]:
    """Select the lines that matter: all of a short run; else those about the instances, with faults and proposals.

    An ellipsis replaces the lines before the last `lines_max`.
    """
    if len(lines) > lines_max and instances:
        about = re.compile("|".join(rf"(?<![\d.]){id.leader}\.{id.index}(?![\d.])" for id in instances))
        lines = [line for line in lines if about.search(line) or any(mark in line for mark in _LANDMARKS)]
    if len(lines) <= lines_max:
        return list(lines)
    return [f"... {len(lines) - lines_max} lines before", *lines[-lines_max:]]
