"""Performs the core's effects: the one place where durable comes before visible (PROTOCOL 6).

Turns are finished in the order in which the core made them. While one group of turns is being written, later turns
gather and become the next group: that is the whole of group commit. No I/O happens here; disk, network and machine
are given, so the simulator performs effects with this very code.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from pydsm.core.types.effects import Abort, Effects, Execute, Record, TakeCheckpoint, Transfer
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Message


class Core(Protocol):
    """The part of `core.replica.Replica` that a performer needs."""

    def receive(self, sender: ReplicaId, message: Message) -> None:
        """Take a message; here it is one of the replica's own, which has become durable."""
        ...

    def take_effects(self) -> Effects:
        """Everything asked for since the last call; falsy when there is nothing."""
        ...


class Disk(Protocol):
    """Where records go."""

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """Make all of `records` durable in one step, in order, then call `done` from the loop that owns the core.

        Called again only after `done`. On failure `done` is never called, and the owner of the disk stops the replica.
        """
        ...


class Network(Protocol):
    """Where messages go. Loss, delay, doubling and reordering are all allowed."""

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Pass one message to several peers, never to the sender itself; returns at once."""
        ...


class Application(Protocol):
    """Where agreed batches go."""

    def execute(self, execution: Execute) -> None:
        """Apply a batch to the state machine and answer the clients that wait for it here."""
        ...

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        """The state is that of a checkpoint, between what was executed before and what comes next."""
        ...

    def abort(self, abort: Abort) -> None:
        """Tell the waiting clients that their requests were definitely not executed."""
        ...

    def transfer(self, transfer: Transfer) -> None:
        """Do something about a snapshot that travels, beside the work of the loop; returns at once."""
        ...


class Performer:
    """Call `pump` after every event given to the core."""

    def __init__(
        self,
        replica: ReplicaId,
        core: Core,
        disk: Disk,
        network: Network,
        application: Application,
        lazy_records_max: int = 4096,
    ) -> None:
        self._replica = replica
        self._core = core
        self._disk = disk
        self._network = network
        self._application = application
        self._lazy_records_max = lazy_records_max
        self._lazy: list[Record] = []
        self._waiting: deque[Effects] = deque()
        self._being_written: list[Effects] = []
        self._pumping = False

    @property
    def turns_waiting(self) -> int:
        """Turns whose effects are not all visible yet: what back-pressure from the disk looks at."""
        return len(self._waiting) + len(self._being_written)

    def pump(self) -> None:
        """Take what the core has produced and perform as much of it as the disk allows."""
        if self._pumping:
            return  # a self-addressed message or a synchronous disk came back here; the loop below goes on
        self._pumping = True
        try:
            while effects := self._core.take_effects():
                for send in effects.early:
                    self._network.send(send.to, send.message)
                self._waiting.append(effects)
                self._advance()
        finally:
            self._pumping = False

    def finish(self) -> None:
        """The replica stops in good order: write what could have waited for company, so that its return asks nobody."""
        if self._lazy and not self._being_written:
            records, self._lazy = self._lazy, []
            self._disk.write(records, lambda: None)

    def _advance(self) -> None:
        while self._waiting and not self._being_written:
            if self._waiting[0].records or len(self._lazy) > self._lazy_records_max:
                self._write_group()
            else:
                effects = self._waiting.popleft()
                self._lazy += effects.lazy_records
                self._release(effects)

    def _write_group(self) -> None:
        self._being_written = list(self._waiting)
        self._waiting.clear()
        records, self._lazy = self._lazy, []
        for effects in self._being_written:
            records += effects.lazy_records
            records += effects.records
        self._disk.write(records, self._written)

    def _written(self) -> None:
        group, self._being_written = self._being_written, []
        outer, self._pumping = self._pumping, True  # an application that proposes meanwhile must not overtake the group
        try:
            for effects in group:
                self._release(effects)
            self._advance()
        finally:
            self._pumping = outer
        self.pump()

    def _release(self, effects: Effects) -> None:
        """Durable by now; becomes visible."""
        for send in effects.sends:
            if self._replica in send.to:
                self._core.receive(self._replica, send.message)
                others = tuple(peer for peer in send.to if peer != self._replica)
                if others:
                    self._network.send(others, send.message)
            else:
                self._network.send(send.to, send.message)
        for execution in effects.executions:
            if isinstance(execution, Execute):
                self._application.execute(execution)
            else:
                self._application.checkpoint(execution)
        for abort in effects.aborts:
            self._application.abort(abort)
        for transfer in effects.transfers:
            self._application.transfer(transfer)
