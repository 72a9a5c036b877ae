"""Collects the effects of one turn. The order in which they are performed is defined in `core.types.effects`."""

from pydsm.core.types.effects import Abort, Effects, Execute, Record, Send, TakeCheckpoint, Transfer
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Message

_NOTHING = Effects()
"""Shared by all empty turns and never changed: callers of `take` only read the effects."""


class Outbox:
    """The effects requested since the last `take`."""

    def __init__(self) -> None:
        self._effects = Effects()

    def take(self) -> Effects:
        """Return all collected effects and empty the outbox."""
        if not self._effects:
            return _NOTHING  # most turns have no effects, and new lists cost time
        effects, self._effects = self._effects, Effects()
        return effects

    def persist(self, record: Record) -> None:
        """Write the record durably before all other effects of this turn, except early messages."""
        self._effects.records.append(record)

    def persist_lazily(self, record: Record) -> None:
        """Write the record at some later time; no effect waits for it."""
        effects = self._effects
        # Lazy records of a turn are written before its awaited records. Two records of one instance must be written in
        # the order in which they were made, so behind an awaited record a lazy one is appended to the awaited list.
        (effects.records or effects.lazy_records).append(record)

    def send_early(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Send without waiting for records: only for messages that report nothing which a crash could lose."""
        if to:
            self._effects.early.append(Send(to, message))

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Send after this turn's records are durable. `to` may contain this replica, which then receives it as well."""
        if to:
            self._effects.sends.append(Send(to, message))

    def execute(self, execution: Execute | TakeCheckpoint) -> None:
        """Execute after this turn's records are durable, and after all earlier executions."""
        self._effects.executions.append(execution)

    def abort(self, abort: Abort) -> None:
        """Report aborted requests to their clients after this turn's records are durable."""
        self._effects.aborts.append(abort)

    def transfer(self, transfer: Transfer) -> None:
        """Perform a step of a snapshot transfer after this turn's records are durable."""
        self._effects.transfers.append(transfer)
