"""The fetch of a snapshot from peers: which peer is asked for which bytes, and what happens if they do not arrive.

"A message about a purged instance is answered `Compacted(checkpoint)`: the sender fetches the snapshot"
(docs/reference/protocol.md, section 6). A crash, a source that is down or a damaged piece only delays the transfer.
"""

import pytest

from pydsm.core.log.conflicts import DeclaredKeys
from pydsm.core.protocol.snapshot_fetch import SnapshotFetcher
from pydsm.core.protocol.state import ReplicaState
from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.config import Config
from pydsm.core.types.effects import BeginFetch, InstallSnapshot, KeepPiece, Send, ServePiece, Transfer
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import ReplicaId, Tick
from pydsm.core.types.messages import Compacted, FetchSnapshot, SnapshotPiece
from tests.unit.core.helpers import P0, P1, P2, P3, at

DATA = b"0123456789"
"""The snapshot of checkpoint 5."""


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(number, at(1, number), Position((0, number, 0, 0)), (0, number, 0, 0), 7)


class Bench:
    """The transfers of replica 0 of four, which has executed checkpoint 2; `asked` returns new messages."""

    def __init__(self) -> None:
        self.state = ReplicaState(Config(P0, 4, fetch_ticks=100), DeclaredKeys())
        self.transfers = SnapshotFetcher(self.state)
        self.execute(2)

    def execute(self, number: int) -> None:
        """Execute a checkpoint without a fetch."""
        self.state.schedule.begin(checkpoint(number), self.state.now)

    def purged(self, sender: ReplicaId, number: int = 5) -> None:
        """A peer sends Compacted."""
        self.transfers.on_compacted(sender, Compacted(number, (0, number, 0, 0)))

    def piece(self, sender: ReplicaId, offset: int, data: bytes, *, number: int = 5, size: int = len(DATA)) -> None:
        """A peer sends some bytes."""
        self.transfers.on_piece(sender, SnapshotPiece(number, offset, size, data))

    def kept(self, offset: int, *, number: int = 5, damaged: bool = False) -> None:
        """The disk reports how many bytes are valid."""
        self.transfers.kept(number, offset, damaged=damaged)

    def tick(self, now: int) -> None:
        """Advance the time."""
        self.state.now = Tick(now)
        self.transfers.tick()

    def asked(self) -> list[Transfer | tuple[ReplicaId, FetchSnapshot]]:
        """The requested transfers, then the receivers of messages."""
        effects = self.state.outbox.take()
        return [*effects.transfers, *map(_question, effects.sends)]


def _question(send: Send) -> tuple[ReplicaId, FetchSnapshot]:
    (to,) = send.to
    assert isinstance(send.message, FetchSnapshot)
    return to, send.message


def asking(source: ReplicaId = P1, offset: int = 0) -> Bench:
    """A replica that has just asked this peer for the bytes from `offset` on."""
    bench = Bench()
    bench.purged(source)
    bench.kept(offset)
    assert bench.asked() == [BeginFetch(5), (source, FetchSnapshot(5, offset))]
    return bench


def installing() -> Bench:
    """A replica that has all the bytes, and has requested the installation."""
    bench = asking(P1, len(DATA))
    bench.piece(P1, len(DATA), b"")
    assert bench.asked() == [InstallSnapshot(5)]
    return bench


# Beginning


def test_instances_compacted_elsewhere_and_missing_here_are_fetched() -> None:
    bench = Bench()
    bench.purged(P1, 3)
    assert bench.asked() == [BeginFetch(3)]
    assert bench.transfers.progress == (3, 0, None)


@pytest.mark.parametrize("number", [1, 2])
def test_a_snapshot_that_has_no_more_than_was_executed_here_is_not_fetched(number: int) -> None:
    bench = Bench()
    bench.purged(P1, number)
    assert bench.asked() == []
    assert bench.transfers.progress is None


def test_nothing_is_requested_before_the_disk_has_reported_its_bytes() -> None:
    bench = Bench()
    bench.purged(P1)
    bench.tick(10_000)
    assert bench.asked() == [BeginFetch(5)]


def test_a_fetch_continues_from_the_bytes_on_disk() -> None:
    bench = Bench()
    bench.purged(P1)
    bench.kept(7)
    assert bench.asked() == [BeginFetch(5), (P1, FetchSnapshot(5, 7))]
    assert bench.transfers.progress == (5, 7, None)


def test_a_repeated_announcement_changes_nothing() -> None:
    bench = asking(P1)
    bench.purged(P1)
    bench.purged(P2)
    assert bench.asked() == []


def test_another_peer_with_a_newer_one_changes_nothing_while_the_source_may_still_have_the_old_one() -> None:
    bench = asking(P1)
    bench.purged(P2, 9)
    assert bench.asked() == []
    assert bench.transfers.progress == (5, 0, None)


def test_a_source_with_only_a_newer_snapshot_makes_the_fetch_begin_again_with_it() -> None:
    bench = asking(P1, 4)
    bench.purged(P1, 9)
    assert bench.asked() == [BeginFetch(9)]
    assert bench.transfers.progress == (9, 0, None)
    bench.kept(8)  # of the old one, which was being written
    assert bench.asked() == []
    bench.kept(0, number=9)
    assert bench.asked() == [(P1, FetchSnapshot(9, 0))]


def test_a_source_that_compacts_while_a_piece_is_written_restarts_the_fetch_too() -> None:
    bench = asking(P1)
    bench.piece(P1, 0, DATA[:4])
    bench.purged(P1, 9)
    assert bench.asked() == [KeepPiece(5, 0, DATA[:4]), BeginFetch(9)]


def test_a_snapshot_that_is_being_installed_is_not_given_up_for_a_newer_one() -> None:
    bench = installing()
    bench.purged(P1, 9)
    assert bench.asked() == []


# Pieces


def test_each_piece_is_on_disk_before_the_next_is_requested() -> None:
    bench = asking(P1)
    bench.piece(P1, 0, DATA[:4])
    assert bench.asked() == [KeepPiece(5, 0, DATA[:4])]
    assert bench.transfers.progress == (5, 0, 10)
    bench.kept(4)
    assert bench.asked() == [(P1, FetchSnapshot(5, 4))]
    assert bench.transfers.progress == (5, 4, 10)


def test_the_last_piece_is_followed_by_the_installation() -> None:
    bench = asking(P1, 4)
    bench.piece(P1, 4, DATA[4:])
    bench.kept(10)
    assert bench.asked() == [KeepPiece(5, 4, DATA[4:]), InstallSnapshot(5)]


def test_a_snapshot_that_was_on_disk_already_is_installed_when_a_peer_has_sent_its_size() -> None:
    bench = asking(P1, len(DATA))
    bench.piece(P1, len(DATA), b"")
    assert bench.asked() == [InstallSnapshot(5)]


def test_after_an_empty_piece_before_the_end_the_next_peer_is_asked() -> None:
    bench = asking(P1, 4)
    bench.piece(P1, 4, b"")
    assert bench.asked() == [(P2, FetchSnapshot(5, 4))]


@pytest.mark.parametrize(("number", "offset"), [(4, 4), (6, 4), (5, 3), (5, 0)])
def test_an_unrequested_piece_is_ignored(number: int, offset: int) -> None:
    bench = asking(P1, 4)
    bench.piece(P1, offset, DATA[4:], number=number, size=99)
    assert bench.asked() == []
    assert bench.transfers.progress == (5, 4, None)


def test_a_duplicated_piece_is_stored_once() -> None:
    bench = asking(P1)
    bench.piece(P1, 0, DATA[:4])
    bench.piece(P1, 0, DATA[:4])
    assert bench.asked() == [KeepPiece(5, 0, DATA[:4])]


def test_a_piece_without_a_fetch_is_ignored() -> None:
    bench = Bench()
    bench.piece(P1, 0, DATA)
    assert bench.asked() == []


def test_a_damaged_piece_is_requested_from_the_next_peer_after_the_last_good_byte() -> None:
    bench = asking(P1, 4)
    bench.piece(P1, 4, DATA[4:8])
    bench.kept(3, damaged=True)  # the frame that it ends began before it
    assert bench.asked() == [KeepPiece(5, 4, DATA[4:8]), (P2, FetchSnapshot(5, 3))]
    assert bench.transfers.progress == (5, 3, 10)


def test_damage_in_the_last_piece_is_detected_although_all_bytes_have_arrived() -> None:
    bench = asking(P1, 4)
    bench.piece(P1, 4, DATA[4:])
    bench.kept(10, damaged=True)
    assert bench.asked() == [KeepPiece(5, 4, DATA[4:]), (P2, FetchSnapshot(5, 10))]


def test_a_snapshot_found_damaged_when_it_is_installed_is_fetched_again_from_the_next_peer() -> None:
    bench = installing()
    bench.kept(0, damaged=True)
    assert bench.asked() == [(P2, FetchSnapshot(5, 0))]


@pytest.mark.parametrize("number", [4, 6])
def test_a_disk_report_about_another_snapshot_is_ignored(number: int) -> None:
    bench = Bench()
    bench.purged(P1)
    bench.kept(3, number=number)
    assert bench.asked() == [BeginFetch(5)]


def test_an_unrequested_disk_report_is_ignored() -> None:
    bench = asking(P1)
    bench.kept(7)
    assert bench.asked() == []
    idle = Bench()
    idle.kept(7)
    assert idle.asked() == []


# Sources that die


def test_a_source_that_is_late_is_left_for_the_next_and_the_last_is_followed_by_the_first() -> None:
    """A peer may be farther away than the wait, so each wait is twice as long as the one before, up to 32 times."""
    bench = asking(P2)
    asked_at = []
    for now in range(0, 20_000, 50):
        bench.tick(now)
        asked_at += [(now, one[0]) for one in bench.asked() if isinstance(one, tuple)]
    assert asked_at[:5] == [(100, P3), (300, P1), (700, P2), (1500, P3), (3100, P1)]
    assert [one for one, _ in asked_at[5:8]] == [6300, 9500, 12_700]


def test_the_wait_for_a_source_begins_again_with_each_request() -> None:
    bench = asking(P1)
    bench.tick(90)
    bench.piece(P1, 0, DATA[:4])
    bench.kept(4)
    bench.asked()
    bench.tick(189)
    assert bench.asked() == []
    bench.tick(190)
    assert bench.asked() == [(P2, FetchSnapshot(5, 4))]


def test_after_a_late_piece_the_wait_for_the_next_is_twice_its_duration() -> None:
    bench = asking(P1)
    bench.tick(100)
    assert bench.asked() == [(P2, FetchSnapshot(5, 0))]
    bench.tick(250)
    bench.piece(P1, 0, DATA[:4])
    bench.kept(4)
    assert bench.asked() == [KeepPiece(5, 0, DATA[:4]), (P1, FetchSnapshot(5, 4))]
    bench.tick(250 + 499)
    assert bench.asked() == []
    bench.tick(250 + 500)
    assert bench.asked() == [(P2, FetchSnapshot(5, 4))]


def test_the_wait_for_a_source_grows_with_its_distance() -> None:
    bench = Bench()
    bench.state.distances.measured(P1, 400)
    bench.purged(P1)
    bench.kept(0)
    bench.asked()
    bench.tick(1199)
    assert bench.asked() == []
    bench.tick(1200)
    assert bench.asked() == [(P2, FetchSnapshot(5, 0))]


def test_a_slow_disk_is_no_late_source() -> None:
    bench = asking(P1)
    bench.piece(P1, 0, DATA[:4])
    bench.tick(10_000)
    assert bench.asked() == [KeepPiece(5, 0, DATA[:4])]
    bench.kept(4)
    assert bench.asked() == [(P1, FetchSnapshot(5, 4))]


def test_a_late_answer_of_an_abandoned_source_is_accepted_and_the_source_asked_again() -> None:
    bench = asking(P1)
    bench.tick(100)
    bench.asked()
    bench.piece(P1, 0, DATA[:4])
    assert bench.asked() == [KeepPiece(5, 0, DATA[:4])]
    bench.piece(P2, 0, DATA[:6])
    assert bench.asked() == []
    bench.kept(4)
    assert bench.asked() == [(P1, FetchSnapshot(5, 4))]


def test_a_peer_with_a_newer_snapshot_is_used_once_the_source_was_late() -> None:
    bench = asking(P1)
    bench.purged(P3, 6)
    assert bench.asked() == []
    bench.tick(100)
    bench.asked()
    bench.purged(P3, 6)
    assert bench.asked() == [BeginFetch(6)]


# Claims that are not true


def test_a_checkpoint_with_a_number_too_high_for_its_position_is_refused() -> None:
    """Each checkpoint before it has a barrier in its position."""
    bench = Bench()
    with pytest.raises(PeerProtocolError, match=r"checkpoint 12 .* has 10 instances"):
        bench.transfers.on_compacted(P1, Compacted(12, (0, 6, 4, 0)))
    assert bench.transfers.progress is None
    bench.transfers.on_compacted(P1, Compacted(11, (0, 6, 4, 0)))
    assert bench.asked() == [BeginFetch(11)]


def claimed_in_vain() -> Bench:
    """A fetch of checkpoint 10^9, which replica 1 claims to have; all were asked, and none has sent a piece."""
    bench = Bench()
    bench.purged(P1, 10**9)
    bench.kept(0, number=10**9)
    for now in (100, 300, 700):
        bench.tick(now)
    bench.asked()
    return bench


def test_an_older_snapshot_is_fetched_when_no_peer_has_the_wanted_one() -> None:
    bench = Bench()
    bench.purged(P1, 10**9)
    bench.kept(0, number=10**9)
    bench.tick(100)
    bench.tick(300)
    bench.purged(P3, 6)
    assert bench.transfers.progress == (10**9, 0, None)
    bench.tick(700)
    bench.asked()
    bench.purged(P3, 2)
    assert bench.asked() == []
    bench.purged(P3, 6)
    assert bench.asked() == [BeginFetch(6)]


def test_a_peer_that_announced_a_missing_snapshot_is_used_again_only_after_all_peers_failed_for_another() -> None:
    bench = claimed_in_vain()
    bench.purged(P3, 6)
    bench.kept(0, number=6)
    bench.tick(800)
    bench.purged(P1, 10**9)
    assert bench.transfers.progress == (6, 0, None)
    bench.tick(1000)
    bench.tick(1400)
    bench.purged(P1, 10**9)
    assert bench.transfers.progress == (10**9, 0, None)


def test_a_peer_that_announced_a_missing_snapshot_is_trusted_again_after_it_sent_good_bytes() -> None:
    bench = claimed_in_vain()
    bench.purged(P3, 6)
    bench.kept(0, number=6)
    bench.piece(P1, 0, DATA[:4], number=6)
    bench.kept(4, number=6)
    bench.purged(P1, 9)
    assert bench.transfers.progress == (9, 0, None)


# Fetches that are no longer needed


def test_a_fetch_ends_if_the_checkpoint_was_executed_meanwhile() -> None:
    bench = asking(P1)
    bench.execute(5)
    bench.tick(1)
    assert bench.transfers.progress is None
    bench.piece(P1, 0, DATA)
    assert bench.asked() == []


def test_a_fetch_is_not_installed_if_the_checkpoint_was_executed_during_the_last_write() -> None:
    """An installation cannot be undone."""
    bench = asking(P1)
    bench.piece(P1, 0, DATA)
    bench.execute(6)
    bench.kept(len(DATA))
    assert bench.asked() == [KeepPiece(5, 0, DATA)]
    assert bench.transfers.progress is None


def test_an_installation_is_waited_for_whatever_time_it_takes() -> None:
    bench = installing()
    bench.execute(6)
    bench.tick(10_000)
    bench.piece(P1, len(DATA), b"")
    assert bench.asked() == []
    assert bench.transfers.progress == (5, 10, 10)


def test_a_disk_that_rejects_the_snapshot_ends_the_fetch_until_a_later_announcement() -> None:
    bench = asking(P1)
    bench.piece(P1, 0, DATA[:4])
    bench.transfers.give_up(5)
    assert bench.transfers.progress is None
    bench.tick(99)
    bench.purged(P2)
    assert bench.asked() == [KeepPiece(5, 0, DATA[:4])]
    bench.tick(100)
    bench.purged(P2)
    assert bench.asked() == [BeginFetch(5)]


def test_a_snapshot_damaged_at_every_peer_is_requested_at_a_limited_rate() -> None:
    bench = asking(P1)
    for peer in (P1, P2, P3, P1):
        bench.piece(peer, 0, DATA[:4])
        bench.kept(0, damaged=True)
    bench.asked()
    assert bench.transfers.progress is None
    bench.tick(99)
    bench.purged(P1)
    assert bench.asked() == []
    bench.tick(100)
    bench.purged(P1)
    assert bench.asked() == [BeginFetch(5)]


def test_an_older_snapshot_replaces_a_damaged_one_if_it_has_more_than_was_executed() -> None:
    bench = asking(P1)
    bench.purged(P1, 3)
    assert bench.asked() == []
    bench.piece(P1, 0, DATA[:4])
    bench.kept(0, damaged=True)
    bench.asked()
    bench.purged(P2, 2)
    assert bench.asked() == []
    bench.purged(P2, 3)
    assert bench.asked() == [BeginFetch(3)]


def test_a_failure_to_store_an_older_snapshot_does_not_affect_this_one() -> None:
    bench = asking(P1)
    bench.transfers.give_up(4)
    assert bench.transfers.progress == (5, 0, None)
    idle = Bench()
    idle.transfers.give_up(5)
    assert idle.transfers.progress is None


# Requests of peers


def test_a_peer_that_fetches_receives_the_requested_bytes() -> None:
    bench = Bench()
    bench.transfers.on_fetch(P2, FetchSnapshot(2, 40))
    assert bench.asked() == [ServePiece(P2, 2, 40)]
