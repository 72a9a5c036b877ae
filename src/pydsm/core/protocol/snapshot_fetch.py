"""How a replica fetches a snapshot if it lacks instances that its peers have compacted.

Decides which peer is asked for which bytes, and what happens if they do not arrive, are damaged or are no longer
available. Guarantees that a snapshot is fetched only while it has more than was executed here, and that each piece is
on disk before the next one is requested. So a crash, a failed source, a damaged piece, or a peer that announces a
snapshot which no replica has, only delays the fetch. Reading, writing and checking bytes is left to the runtime.
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
"""The wait for a piece doubles with each repetition, at most this many times: a peer may be far away."""


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
    """The peer that announced the snapshot."""
    waits: _Waits = _Waits.FOR_DISK
    offset: int = 0
    size: int | None = None
    """Bytes of the whole snapshot; None until the first piece arrives."""
    deadline: Tick = _NOW
    first_asked: Tick = _NOW
    """Tick of the first request for the bytes at `offset`."""
    last_asked: Tick = _NOW
    """Tick of the last request for them, sent to `source`."""
    slowest_ticks: int = 0
    """The longest time that a late piece took."""
    repeats: int = 0
    """Number of requests for the same bytes without a good answer."""
    damaged: bool = False
    """Whether the bytes at `offset` arrived damaged."""


class SnapshotFetcher:
    """Fetches at most one snapshot at a time, and passes requests of peers for own snapshots to the runtime."""

    def __init__(self, state: ReplicaState) -> None:
        self._state = state
        self._fetch: _Fetch | None = None
        self._rest_until = _NOW
        self._unreliable: set[ReplicaId] = set()
        """Peers that announced a snapshot which no peer sent; removed when they send valid bytes."""

    @property
    def progress(self) -> tuple[int, int, int | None] | None:
        """Of a fetch in progress: checkpoint number, bytes on disk, total bytes if known; None without a fetch."""
        fetch = self._fetch
        return None if fetch is None else (fetch.number, fetch.offset, fetch.size)

    def on_compacted(self, sender: ReplicaId, message: Compacted) -> None:
        """Fetch the snapshot announced by a peer that has compacted what is missing here, if it is better.

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
                self._unreliable.add(fetch.claimed_by)
            self._fetch = _Fetch(message.number, sender, sender)
            self._state.outbox.transfer(BeginFetch(message.number))

    def _is_better(self, fetch: _Fetch, sender: ReplicaId, number: int) -> bool:
        """Whether to replace the current fetch by this snapshot.

        Only if it comes from the current source, or the source did not answer. A newer one replaces it then; an older
        one only if the wanted one is unavailable: it is damaged, or all peers were asked for the same bytes in vain.
        """
        if fetch.waits is _Waits.FOR_INSTALL or not (sender == fetch.source or fetch.repeats):
            return False
        in_vain = fetch.repeats >= len(self._state.peers)
        if number > fetch.number:
            return in_vain or sender not in self._unreliable
        return number < fetch.number and (in_vain or fetch.damaged)

    def on_fetch(self, sender: ReplicaId, message: FetchSnapshot) -> None:
        """Pass a request of a peer to the runtime, which reads the bytes."""
        self._state.outbox.transfer(ServePiece(sender, message.number, message.offset))

    def on_piece(self, sender: ReplicaId, message: SnapshotPiece) -> None:
        """Store the requested piece and ignore all others; ask another peer if the piece is empty.

        The sender becomes the source of the next pieces, also if its answer is late.
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
            self._request_from_next(fetch)

    def kept(self, number: int, offset: int, *, damaged: bool) -> None:
        """The disk has `offset` valid bytes of this snapshot; `damaged` if the last piece was not valid."""
        fetch = self._fetch
        if fetch is None or fetch.number != number or fetch.waits is _Waits.FOR_PEER:
            return
        fetch.damaged = damaged
        if offset > fetch.offset and not damaged:
            self._unreliable.discard(fetch.source)
        fetch.offset = offset
        if damaged and fetch.repeats >= len(self._state.peers):
            self.give_up(number)  # damaged from every peer: wait before the next fetch
        elif damaged:
            self._request_from_next(fetch)
        elif offset == fetch.size:
            self._finish(fetch)
        else:
            fetch.repeats = 0
            self._ask(fetch)

    def give_up(self, number: int) -> None:
        """End a fetch that cannot be stored. A `Compacted` begins a new one after `fetch_ticks` at the earliest."""
        if self._fetch is not None and self._fetch.number == number:
            self._fetch = None
            self._rest_until = Tick(self._state.now + self._state.config.fetch_ticks)

    def tick(self) -> None:
        """Ask another peer if an answer is late; end the fetch if this replica has executed that checkpoint."""
        fetch = self._fetch
        if fetch is None or fetch.waits is _Waits.FOR_INSTALL:
            return
        if fetch.number <= self._state.schedule.number:
            self._fetch = None
        elif fetch.waits is _Waits.FOR_PEER and fetch.deadline <= self._state.now:
            self._request_from_next(fetch)

    def _ask(self, fetch: _Fetch) -> None:
        state = self._state
        fetch.waits = _Waits.FOR_PEER
        fetch.last_asked = state.now
        if not fetch.repeats:
            fetch.first_asked = state.now
        fetch.deadline = Tick(state.now + self._wait(fetch))
        state.outbox.send((fetch.source,), FetchSnapshot(fetch.number, fetch.offset))

    def _wait(self, fetch: _Fetch) -> int:
        """Ticks to wait for a piece: at least what this network needs, doubled with each repetition."""
        usual = max(self._state.config.fetch_ticks, 3 * self._state.distances.to(fetch.source), 2 * fetch.slowest_ticks)
        return usual << min(fetch.repeats, _DOUBLINGS_MAX)

    def _request_from_next(self, fetch: _Fetch) -> None:
        """Ask the next peer: any may have the snapshot, with the same bytes."""
        peers = self._state.peers
        fetch.repeats += 1
        fetch.source = peers[(peers.index(fetch.source) + 1) % len(peers)]
        self._ask(fetch)

    def _finish(self, fetch: _Fetch) -> None:
        """Install a complete snapshot, unless it is no longer needed: an installation cannot be undone."""
        if fetch.number <= self._state.schedule.number:
            self._fetch = None
            return
        fetch.waits = _Waits.FOR_INSTALL
        self._state.outbox.transfer(InstallSnapshot(fetch.number))
