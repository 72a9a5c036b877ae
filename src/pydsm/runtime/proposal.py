"""Commands on their way through an instance, and who gets which of its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydsm.core.sessions.session_window import POSTPONED
from pydsm.core.types.messages import Batch
from pydsm.machines.base import Result
from pydsm.runtime.command_queue import Stream, Submission


@dataclass(slots=True)
class Proposal:
    """Commands that travel together, who waits for them, and how many instances were tried in vain."""

    parts: list[Submission]
    batch: Batch
    attempts: int = 0
    streams: dict[Stream, None] = field(default_factory=dict)
    """The connections that wait for it with what they have sent since."""

    @property
    def may_be_postponed(self) -> bool:
        """Whether some of it is executed only after something else."""
        return any(run.after for run in self.batch.runs)

    def answer(self, answers: Sequence[Any]) -> None:
        """One answer for each command."""
        start = 0
        for part in self.parts:
            part.deliver(answers[start : start + len(part.commands)])
            start += len(part.commands)

    def answer_executed(self, results: Sequence[Result]) -> list[Submission]:
        """The same, but for what was left out because something else must be executed before: gives that."""
        postponed: list[Submission] = []
        start = 0
        for part in self.parts:
            if results[start] is POSTPONED:
                postponed.append(part)
            else:
                part.deliver(results[start : start + len(part.commands)])
            start += len(part.commands)
        return postponed
