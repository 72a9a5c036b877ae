"""Proposes the commands that a machine reports as due; in a healthy group, one replica does this for all.

Decides how late a command may be before a replica proposes it. Guarantees that nothing is proposed while earlier due
commands are unanswered.
"""

import logging
from collections.abc import Sequence

from pydsm.client_protocol.answers import Answer
from pydsm.core.types.ids import ReplicaId
from pydsm.machines.base import SupportsScheduledCommands
from pydsm.runtime.batching import Submit

log = logging.getLogger("pydsm.upkeep")

SCHEDULED_COMMANDS_SECONDS = 0.5
"""Interval between two checks."""
_GRACE_MS = 1000
"""How late a command may be before replica 0 proposes it; each further replica waits this much longer, so that in a
healthy group one replica proposes for all."""


class ScheduledCommandProposer:
    """Proposes due commands at one replica, and ignores their results."""

    def __init__(self, machine: SupportsScheduledCommands, replica: ReplicaId, submit: Submit) -> None:
        self._machine = machine
        self._late_ms = _GRACE_MS * (1 + replica)
        self._submit = submit
        self._unanswered = 0
        self._has_raised = False

    def propose_due(self, now_ms: int) -> None:
        """Propose what is due at this Unix time (ms), unless earlier due commands are unanswered."""
        if self._unanswered:
            return
        for command in self._overdue(now_ms - self._late_ms):
            self._unanswered += 1
            self._submit(command, self._answered)

    def _overdue(self, due_ms: int) -> Sequence[bytes]:
        """The due commands; none if the machine raises. Only the first exception is logged."""
        try:
            return self._machine.due_commands(due_ms)
        except Exception:
            if not self._has_raised:
                log.exception(
                    "the machine's due_commands raised; it is called again (further exceptions are not logged)"
                )
            self._has_raised = True
            return ()

    def _answered(self, answer: Answer) -> None:
        self._unanswered -= 1
