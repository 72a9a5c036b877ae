"""Performs the core's effects: the only module that decides that records are durable before messages leave.

See docs/reference/protocol.md#6-what-is-durable-when-and-what-may-be-removed. A turn is all effects that one call
of `take_effects` returned. Turns are finished in the order in which the core made them. While some turns are being
written, later ones wait; then all of them are written together (group commit). No I/O happens here; disk, network and
application are arguments, so the simulator uses this code too.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from pydsm.core.types.effects import Abort, Effects, Execute, Record, TakeCheckpoint, Transfer
from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import Message


class Core(Protocol):
    """The methods of `core.replica.Replica` that a performer uses."""

    def receive(self, sender: ReplicaId, message: Message) -> None:
        """Handle a message; here, a message that the replica sent to itself, after its turn became durable."""
        ...

    def take_effects(self) -> Effects:
        """The effects requested since the last call; falsy if there are none."""
        ...


class Disk(Protocol):
    """Stores records."""

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """Make all of `records` durable in one step, in order, then call `done` from the loop that owns the core.

        Called again only after `done`. On failure `done` is never called, and the owner of the disk stops the replica.
        """
        ...


class Network(Protocol):
    """Sends messages to peers. It may lose, delay, duplicate and reorder them."""

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        """Send one message to several peers, never to the sender itself; returns immediately."""
        ...


class Application(Protocol):
    """Executes agreed batches and handles checkpoints, aborted instances and snapshot transfers."""

    def execute(self, execution: Execute) -> None:
        """Apply a batch to the state machine and answer the clients that wait for it here."""
        ...

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        """The state is that of this checkpoint: called after everything before it is executed, and nothing after it."""
        ...

    def abort(self, abort: Abort) -> None:
        """Propose the requests of this instance again, or answer them `Aborted`: this instance never executes them."""
        ...

    def transfer(self, transfer: Transfer) -> None:
        """Perform one step of a snapshot transfer, in the background; returns immediately."""
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
        """Number of turns whose effects are not all performed yet; used for back-pressure from the disk."""
        return len(self._waiting) + len(self._being_written)

    def pump(self) -> None:
        """Take the core's effects and perform as many of them as the disk allows."""
        if self._pumping:
            return  # called again through a self-addressed message or a synchronous disk; the outer loop continues
        self._pumping = True
        try:
            while effects := self._core.take_effects():
                # Early messages report nothing that a crash could take back (`core.types.effects`), such as questions
                # of a recovery, or a PreAccept whose index is reserved durably. So they need not wait for the disk,
                # nor for earlier turns.
                for send in effects.early:
                    self._network.send(send.to, send.message)
                self._waiting.append(effects)
                self._advance()
        finally:
            self._pumping = False

    def finish(self) -> None:
        """Write the lazy records before an orderly stop, so that the next start need not ask peers for them."""
        if self._lazy and not self._being_written:
            records, self._lazy = self._lazy, []
            self._disk.write(records, lambda: None)

    def _advance(self) -> None:
        # A turn without records is released without a write, but only if no turn before it waits: it may depend on
        # records of an earlier turn, such as an answer that repeats a vote. Lazy records (commits learnt from others)
        # hold nothing back; they are written with the next group, or when there are too many.
        while self._waiting and not self._being_written:
            if self._waiting[0].records or len(self._lazy) > self._lazy_records_max:
                self._write_group()
            else:
                effects = self._waiting.popleft()
                self._lazy += effects.lazy_records
                self._release(effects)

    def _write_group(self) -> None:
        # All waiting turns share one write, in which their records keep the order of the turns. Nothing of any of them
        # is sent, executed or answered before `_written`: an answer reports the stored state of an instance, and a
        # vote that a peer has counted but this disk has lost would let recovery choose another value.
        self._being_written = list(self._waiting)
        self._waiting.clear()
        records, self._lazy = self._lazy, []
        for effects in self._being_written:
            records += effects.lazy_records
            records += effects.records
        self._disk.write(records, self._written)

    def _written(self) -> None:
        group, self._being_written = self._being_written, []
        # `_pumping` is set while the group is released: if the application proposes meanwhile, `pump` returns, and the
        # effects of that proposal stay in the core until all earlier turns are released.
        outer, self._pumping = self._pumping, True
        try:
            for effects in group:
                self._release(effects)
            self._advance()
        finally:
            self._pumping = outer
        self.pump()

    def _release(self, effects: Effects) -> None:
        """Perform the effects of one turn, whose records are durable."""
        # Everything here waits for the records of the turn: sends, because they report what the records store;
        # executions, because their reply shows a decision to a client that a restarted leader must still have; aborts
        # and transfers, to keep the order of turns. A replica receives its own votes here as well, so that a leader
        # counts itself only after its vote is durable.
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
