"""Collects the effects of one turn in their legal order (see `effects`)."""

from pydsm.core.types.effects import Abort, Effects, Execute, Record, Send, TakeCheckpoint, Transfer
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Message

_NOTHING = Effects()
"""Never filled: it is given away only, and whoever takes effects reads them."""


class Outbox:
    """What the core has asked for since the last `take`."""

    def __init__(self) -> None:
        self._effects = Effects()

    def take(self) -> Effects:
        """Everything collected; the outbox is empty afterwards."""
        if not self._effects:
            return _NOTHING  # most turns ask for nothing, and new lists are not free
        effects, self._effects = self._effects, Effects()
        return effects

    def persist(self, record: Record) -> None:
        """Durable before anything of this turn becomes visible."""
        self._effects.records.append(record)

    def persist_lazily(self, record: Record) -> None:
        """Durable some time. Behind a record that is awaited anyway it rides along, so that order is kept."""
        effects = self._effects
        (effects.records or effects.lazy_records).append(record)

    def send_early(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """For a request that reports nothing which a crash could take back."""
        if to:
            self._effects.early.append(Send(to, message))

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """After this turn's records are durable. May name the sender itself."""
        if to:
            self._effects.sends.append(Send(to, message))

    def execute(self, execution: Execute | TakeCheckpoint) -> None:
        """After this turn's records are durable, behind all earlier executions."""
        self._effects.executions.append(execution)

    def abort(self, abort: Abort) -> None:
        """After this turn's records are durable."""
        self._effects.aborts.append(abort)

    def transfer(self, transfer: Transfer) -> None:
        """After this turn's records are durable."""
        self._effects.transfers.append(transfer)
