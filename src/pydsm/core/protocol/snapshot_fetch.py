"""How a replica that lacks what others have forgotten comes by a snapshot (PROTOCOL 6, "state transfer").

Decides whom to ask for which bytes, and what is done when they do not come, are damaged, or are not to be had any more.
Guards that a snapshot is wanted only while it has more than was executed here, and that each piece is on the disk
before the next is asked for, so that a crash, a dead source or a damaged piece only costs time. So does a peer that
claims what nobody has. Reading, writing and judging the bytes is left to the runtime.
"""

from dataclasses import dataclass
from enum import Enum

from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types.effects import BeginFetch, InstallSnapshot, KeepPiece, ServePiece
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import ReplicaId, Tick
from pydsm.core.types.messages import Compacted, FetchSnapshot, SnapshotPiece

_NOW = Tick(0)
_DOUBLINGS_MAX = 5
"""A piece that does not come is waited for twice as long the next time, up to this: a peer may be far away."""


class _Waits(Enum):
    """What a fetch waits for."""

    FOR_DISK = "the disk"
    FOR_PEER = "a peer"
    FOR_INSTALL = "its installation"


@dataclass(slots=True)
class _Fetch:
    number: int
    source: ReplicaId
    claimed_by: ReplicaId
    """Who has said that it has it."""
    waits: _Waits = _Waits.FOR_DISK
    offset: int = 0
    size: int | None = None
    """None until a piece has told."""
    deadline: Tick = _NOW
    first_asked: Tick = _NOW
    """When somebody was first asked for the bytes at `offset`."""
    last_asked: Tick = _NOW
    """When `source` was asked for them."""
    slowest_ticks: int = 0
    """How long a piece took that did not come in time."""
    repeats: int = 0
    """How often the same bytes were asked for in vain."""
    damaged: bool = False
    """These bytes came, and were not good."""


class SnapshotFetcher:
    """The snapshot that is on its way to this replica, if there is one; and what others are sent."""

    def __init__(self, state: ReplicaState) -> None:
        self._state = state
        self._fetch: _Fetch | None = None
        self._rest_until = _NOW
        self._doubted: set[ReplicaId] = set()
        """Peers that claimed a snapshot which nobody sent, until they send some good bytes."""

    @property
    def progress(self) -> tuple[int, int, int | None] | None:
        """Of a fetch under way: the checkpoint's number, bytes on the disk, bytes in all if that is known."""
        fetch = self._fetch
        return None if fetch is None else (fetch.number, fetch.offset, fetch.size)

    def on_purged(self, sender: ReplicaId, message: Compacted) -> None:
        """A peer has forgotten what is missing here. The one that is being asked may have forgotten even that since.

        Raises PeerProtocolError for a number that no checkpoint at this position can have.
        """
        instances = sum(message.up_to)
        if message.number - 1 > instances:  # a barrier for each checkpoint before it; its own may stand apart
            raise PeerProtocolError(
                f"it claims the snapshot of checkpoint {message.number} that has {instances} instances: fewer than "
                "there were checkpoints before it"
            )
        fetch = self._fetch
        if message.number <= self._state.schedule.number or self._state.now < self._rest_until:
            return
        if fetch is None or self._is_better(fetch, sender, message.number):
            if fetch is not None and message.number < fetch.number and not fetch.damaged:
                self._doubted.add(fetch.claimed_by)
            self._fetch = _Fetch(message.number, sender, sender)
            self._state.outbox.transfer(BeginFetch(message.number))

    def _is_better(self, fetch: _Fetch, sender: ReplicaId, number: int) -> bool:
        """A newer one, from who was asked or while nobody answers; an older one where the wanted one is not to be had.

        It is not where it is damaged, or where all peers were asked for the same bytes in vain: whoever had it is gone,
        or it never was.
        """
        if fetch.waits is _Waits.FOR_INSTALL or not (sender == fetch.source or fetch.repeats):
            return False
        in_vain = fetch.repeats >= len(self._state.peers)
        if number > fetch.number:
            return in_vain or sender not in self._doubted
        return number < fetch.number and (in_vain or fetch.damaged)

    def on_fetch(self, sender: ReplicaId, message: FetchSnapshot) -> None:
        """Have the runtime look for the bytes."""
        self._state.outbox.transfer(ServePiece(sender, message.number, message.offset))

    def on_piece(self, sender: ReplicaId, message: SnapshotPiece) -> None:
        """Keep what was asked for, and nothing else; ask somebody else when there is nothing in it.

        Whoever sends it goes on to be asked: an answer that is late may still be the first.
        """
        fetch = self._fetch
        if fetch is None or fetch.waits is not _Waits.FOR_PEER:
            return
        if (message.number, message.offset) != (fetch.number, fetch.offset):
            return
        if fetch.repeats:
            asked = fetch.last_asked if sender == fetch.source else fetch.first_asked
            fetch.slowest_ticks = max(fetch.slowest_ticks, self._state.now - asked)
        fetch.source, fetch.size = sender, message.size
        if message.data:
            fetch.waits = _Waits.FOR_DISK
            self._state.outbox.transfer(KeepPiece(fetch.number, fetch.offset, message.data))
        elif fetch.offset == fetch.size:
            self._finish(fetch)
        else:
            self._ask_next(fetch)

    def kept(self, number: int, offset: int, *, damaged: bool) -> None:
        """The disk has so many good bytes of this snapshot; `damaged`: what came last was not good."""
        fetch = self._fetch
        if fetch is None or fetch.number != number or fetch.waits is _Waits.FOR_PEER:
            return
        fetch.damaged = damaged
        if offset > fetch.offset and not damaged:
            self._doubted.discard(fetch.source)
        fetch.offset = offset
        if damaged and fetch.repeats >= len(self._state.peers):
            self.give_up(number)  # everybody's is: not at the speed of the network again and again
        elif damaged:
            self._ask_next(fetch)
        elif offset == fetch.size:
            self._finish(fetch)
        else:
            fetch.repeats = 0
            self._ask(fetch)

    def give_up(self, number: int) -> None:
        """The disk does not take it. A `Compacted` begins anew, but not at once: that would not help, and is logged."""
        if self._fetch is not None and self._fetch.number == number:
            self._fetch = None
            self._rest_until = Tick(self._state.now + self._state.config.fetch_ticks)

    def tick(self) -> None:
        """Ask another peer when an answer is late. Not wanted any more: what was executed here meanwhile is enough."""
        fetch = self._fetch
        if fetch is None or fetch.waits is _Waits.FOR_INSTALL:
            return
        if fetch.number <= self._state.schedule.number:
            self._fetch = None
        elif fetch.waits is _Waits.FOR_PEER and fetch.deadline <= self._state.now:
            self._ask_next(fetch)

    def _ask(self, fetch: _Fetch) -> None:
        state = self._state
        fetch.waits = _Waits.FOR_PEER
        fetch.last_asked = state.now
        if not fetch.repeats:
            fetch.first_asked = state.now
        fetch.deadline = Tick(state.now + self._wait(fetch))
        state.outbox.send((fetch.source,), FetchSnapshot(fetch.number, fetch.offset))

    def _wait(self, fetch: _Fetch) -> int:
        """How long a piece may take: twice as long with each repetition, and never less than this network needs."""
        usual = max(self._state.config.fetch_ticks, 3 * self._state.distances.to(fetch.source), 2 * fetch.slowest_ticks)
        return usual << min(fetch.repeats, _DOUBLINGS_MAX)

    def _ask_next(self, fetch: _Fetch) -> None:
        """Any peer may have the snapshot, with the same bytes; one that has another says so."""
        peers = self._state.peers
        fetch.repeats += 1
        fetch.source = peers[(peers.index(fetch.source) + 1) % len(peers)]
        self._ask(fetch)

    def _finish(self, fetch: _Fetch) -> None:
        """All of it is there. Once it is installed there is no way back, so look once more whether it is wanted."""
        if fetch.number <= self._state.schedule.number:
            self._fetch = None
            return
        fetch.waits = _Waits.FOR_INSTALL
        self._state.outbox.transfer(InstallSnapshot(fetch.number))
