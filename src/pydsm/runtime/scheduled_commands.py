"""What a machine says is due, proposed: by one replica for all, as long as that is there.

Decides how late it may be before a replica sees to it, and that nothing is proposed again before it was answered.
"""

import logging
from collections.abc import Sequence

from pydsm.core.types.ids import ReplicaId
from pydsm.machines.base import SupportsScheduledCommands
from pydsm.runtime.batching import Answer, Submit

log = logging.getLogger("pydsm.upkeep")

SCHEDULED_COMMANDS_SECONDS = 0.5
"""Between two looks."""
_GRACE_MS = 1000
"""How long it may be late before a replica sees to it; once more for each that comes before it, so that in a healthy
group one replica does it for all."""


class ScheduledCommandProposer:
    """Of one replica. Nobody waits for the answers."""

    def __init__(self, machine: SupportsScheduledCommands, replica: ReplicaId, submit: Submit) -> None:
        self._machine = machine
        self._late_ms = _GRACE_MS * (1 + replica)
        self._submit = submit
        self._unanswered = 0
        self._has_raised = False

    def look(self, now_ms: int) -> None:
        """Propose what is due by this Unix time, unless there is no answer yet to what was due before."""
        if self._unanswered:
            return
        for command in self._overdue(now_ms - self._late_ms):
            self._unanswered += 1
            self._submit(command, self._answered)

    def _overdue(self, due_ms: int) -> Sequence[bytes]:
        """None when the machine raises: it is asked again at the next look. Said once."""
        try:
            return self._machine.due_commands(due_ms)
        except Exception:
            if not self._has_raised:
                log.exception(
                    "the machine raised when it was asked what is due_commands; it is asked again (said once)"
                )
            self._has_raised = True
            return ()

    def _answered(self, answer: Answer) -> None:
        self._unanswered -= 1
