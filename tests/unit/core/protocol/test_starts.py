"""The data that a replica lacks by a peer's report, which starts peers refuse, and when a start takes part."""

import pytest

from pydsm.core.protocol.starts import (
    OwnData,
    PeerReport,
    PeerStarts,
    SeenStart,
    Start,
    StartCheck,
    StartInfo,
    describe_missing,
)
from pydsm.core.types.ids import ReplicaId

A, B = ReplicaId(1), ReplicaId(2)
FIRST, SECOND, COPY = Start(1, 11), Start(2, 22), Start(2, 33)
OWN = OwnData(SECOND, found=40, position=45, reserved=64, executed=(7, 8, 9))


def told(
    start: Start | None = FIRST, position: int = 40, index: int = 64, executed: tuple[int, ...] = (7, 8, 9)
) -> PeerReport:
    return PeerReport(A, start, position, index, executed)


@pytest.mark.parametrize(
    "remembered",
    [
        told(),
        told(None, 0, 0, (0, 0, 0)),
        told(SECOND, 45),
        told(index=3, executed=(0, 0, 1)),
    ],
)
def test_nothing_is_missing_if_the_disk_has_all_that_a_peer_has_recorded(remembered: PeerReport) -> None:
    assert describe_missing(OWN, remembered) is None


@pytest.mark.parametrize(
    ("remembered", "words"),
    [
        (told(Start(3, 1), 0), "it has seen start 3 (0000000000000001) of this replica, and this is start 2"),
        (told(COPY, 0), "another process was started from a copy of this data directory"),
        (told(position=41), "41 durable groups of records of this replica, the data directory holds 40, 1 fewer"),
        (told(SECOND, 46), "46 durable groups of records of this replica, the data directory holds 45, 1 fewer"),
        (told(index=70), "up to 70, the data directory has reserved indexes up to 64, 6 fewer"),
        (
            told(executed=(7, 10, 10)),
            "reported (7, 10, 10) to it as executed, the data directory says (7, 8, 9), 3 instances",
        ),
    ],
)
def test_missing_data_are_reported_with_their_amount(remembered: PeerReport, words: str) -> None:
    assert words in str(describe_missing(OWN, remembered))


def test_everything_that_is_missing_is_described() -> None:
    missing = str(describe_missing(OWN, told(position=99, index=99, executed=(9, 9, 9))))
    assert missing.count(";") == 2


def book(*, incarnation: int = 5, start: Start = SECOND, position: int = 40) -> PeerStarts:
    return PeerStarts({A: SeenStart(incarnation, start, position)})


@pytest.mark.parametrize(
    ("start", "position", "words"),
    [
        (FIRST, 40, "its data directory is an older copy"),
        (COPY, 40, "two were started from one data directory"),
        (Start(3, 1), 39, "held 39 groups of records when it started, 40 were seen before"),
    ],
)
def test_a_start_below_the_recorded_start_or_position_is_refused(start: Start, position: int, words: str) -> None:
    assert words in str(book().check_start(A, 5, StartInfo(start, position)))


@pytest.mark.parametrize("start", [SECOND, Start(3, 1), Start(9, 9)])
def test_the_same_start_and_any_later_one_with_all_the_data_is_taken(start: Start) -> None:
    met = book()
    assert met.check_start(A, 5, StartInfo(start, 40)) is None
    assert met.highest(A) == SeenStart(5, start, 40)
    assert met.check_start(A, 5, StartInfo(start, 40)) is None


def test_another_data_directory_is_no_later_start_of_this_one() -> None:
    """Whether another incarnation is accepted is decided elsewhere."""
    met = book()
    assert met.check_start(A, 6, StartInfo(FIRST, 0)) is None
    assert met.highest(A) == SeenStart(6, FIRST, 0)


def test_messages_of_an_earlier_start_are_rejected() -> None:
    met = book()
    assert met.check_stamp(A, 2, 50) is None
    met.check_start(A, 5, StartInfo(Start(3, 1), 50))
    assert "messages of start 2, and start 3" in str(met.check_stamp(A, 2, 60))
    assert met.check_stamp(B, 1, 1) is not None


def test_a_lower_position_of_the_same_start_is_accepted_as_a_late_message() -> None:
    met = book()
    for position in (50, 45):
        assert met.check_stamp(A, 2, position) is None
    assert met.highest(A) == SeenStart(5, SECOND, 50)


def test_only_starts_that_took_part_are_saved_and_positions_only_from_time_to_time() -> None:
    met = PeerStarts({})
    met.check_start(A, 5, StartInfo(SECOND, 40))
    assert met.take_unsaved(positions=True) == {}
    met.check_stamp(A, 2, 41)
    assert met.take_unsaved(positions=False) == {A: SeenStart(5, SECOND, 41)}
    met.check_stamp(A, 2, 42)
    assert met.take_unsaved(positions=False) == {}
    assert met.take_unsaved(positions=True) == {A: SeenStart(5, SECOND, 42)}
    assert met.take_unsaved(positions=True) == {}


def check(peers: int = 4, needed: int = 2) -> StartCheck:
    return StartCheck(peers, needed, 100, grace_min=1, grace_max=5)


def test_a_start_takes_part_as_soon_as_all_peers_have_answered() -> None:
    start = check(2, 1)
    start.answer(A, 100)
    assert not start.passed(100)
    start.answer(B, 100)
    assert start.passed(100)


@pytest.mark.parametrize(("took", "grace"), [(0, 1), (3, 3), (60, 5)])
def test_enough_answers_are_followed_by_a_while_for_the_others(took: float, grace: float) -> None:
    start = check()
    start.answer(A, 100)
    start.answer(A, 100 + took)
    assert not start.passed(10_000)
    start.answer(B, 100 + took)
    assert not start.passed(100 + took + grace - 0.1)
    assert start.passed(100 + took + grace)
    assert start.passed(0)
