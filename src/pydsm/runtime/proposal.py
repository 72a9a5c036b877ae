"""Commands that are proposed together in an instance, and the delivery of its results to their submitters."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydsm.client_protocol.answers import Answer
from pydsm.core.sessions.session_window import POSTPONED
from pydsm.core.types.messages import Batch
from pydsm.machines.base import Result
from pydsm.runtime.command_queue import Stream, Submission


@dataclass(slots=True)
class Proposal:
    """A batch, the submissions in it, and the number of instances that were tried without success."""

    submissions: list[Submission]
    batch: Batch
    attempts: int = 0
    streams: dict[Stream, None] = field(default_factory=dict)
    """The connections whose later commands are held until this proposal is executed or given up."""

    @property
    def may_be_postponed(self) -> bool:
        """Whether the batch has a run that is executed only after an earlier request."""
        return any(run.after for run in self.batch.runs)

    def answer(self, answers: Sequence[Answer]) -> None:
        """Deliver one answer for each command."""
        start = 0
        for submission in self.submissions:
            submission.deliver(answers[start : start + len(submission.commands)])
            start += len(submission.commands)

    def answer_executed(self, results: Sequence[Result]) -> list[Submission]:
        """Deliver results, and return the submissions that were skipped because an earlier request is not executed."""
        postponed: list[Submission] = []
        start = 0
        for submission in self.submissions:
            if results[start] is POSTPONED:
                postponed.append(submission)
            else:
                submission.deliver(results[start : start + len(submission.commands)])
            start += len(submission.commands)
        return postponed
