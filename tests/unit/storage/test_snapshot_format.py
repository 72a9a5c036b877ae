"""The bytes of a snapshot: received in any pieces, damage found at any byte, and valid frames before it kept."""

from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.errors import OperationalError
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.storage.snapshot_format import (
    FRAME,
    MAGIC,
    SNAPSHOT_VERSION,
    Head,
    SnapshotChecker,
    closing,
    decode_end,
    decode_head,
    digest,
    encode_snapshot,
    framed,
    opening,
    read_chunks,
)

BARRIER = InstanceId(ReplicaId(1), 4)
HEAD = Head(SNAPSHOT_VERSION, "test", 3, Checkpoint(4, BARRIER, Position((9, 3, 0), (BARRIER,)), (9, 4, 0), 99))

chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


def encoded(chunks: Sequence[bytes]) -> bytes:
    return encode_snapshot(HEAD, chunks)


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The bytes in pieces that end at these offsets; some may be empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[first:last] for first, last in pairwise(places)]


def take_all(checker: SnapshotChecker, data: bytes, cuts: Sequence[int] = ()) -> bool:
    """Whether nothing wrong is found in these pieces; no more is taken behind the first that is."""
    try:
        for piece in split(data, cuts):
            checker.take(piece)
    except OperationalError:
        return False
    return True


def ends_of_frames(chunks: Sequence[bytes]) -> list[int]:
    """Where `good` may be."""
    frames = [len(framed(chunk)) for chunk in chunks]
    return [*accumulate([0, len(opening(HEAD)), *frames, FRAME.size]), len(encoded(chunks))]


places = st.lists(st.integers(0, 1 << 20), max_size=5)


@given(chunks, places)
def test_a_snapshot_is_whole_in_any_pieces(chunks: list[bytes], cuts: list[int]) -> None:
    data, checker = encoded(chunks), SnapshotChecker()
    for piece in split(data, cuts):
        assert not checker.complete or not piece
        checker.take(piece)
        assert checker.good <= checker.offset
    assert checker.complete
    assert (checker.head, checker.digests) == (HEAD, [digest(chunk) for chunk in chunks])
    assert checker.good == checker.offset == len(data)


@given(chunks, places)
def test_the_valid_part_ends_with_a_frame(chunks: list[bytes], cuts: list[int]) -> None:
    checker, ends = SnapshotChecker(), ends_of_frames(chunks)
    for piece in split(encoded(chunks), cuts):
        checker.take(piece)
        assert checker.good == max(end for end in ends if end <= checker.offset)


@given(chunks, places, st.integers(0, 1 << 20), st.integers(1, 255))
def test_a_flipped_byte_is_found_and_is_not_in_the_valid_part(
    chunks: list[bytes], cuts: list[int], place: int, flipped: int
) -> None:
    data, checker = encoded(chunks), SnapshotChecker()
    place %= len(data)
    damaged = data[:place] + bytes([data[place] ^ flipped]) + data[place + 1 :]
    take_all(checker, damaged, cuts)  # nothing may be found yet where a length was made longer: it waits for more
    assert not checker.complete
    assert checker.good == max(end for end in ends_of_frames(chunks) if end <= place)


@given(chunks, st.integers(0, 1 << 20))
def test_a_snapshot_that_was_cut_is_not_complete(chunks: list[bytes], place: int) -> None:
    data, checker = encoded(chunks), SnapshotChecker()
    assert take_all(checker, data[: place % len(data)])
    assert not checker.complete


@given(chunks, places, st.integers(0, 1 << 20), st.integers(1, 255), places)
@example([b"chunk"], [], len(encoded([b"chunk"])) - 1, 1, [])
@example([], [], 0, 1, [])
def test_continuing_from_the_valid_part_with_the_right_bytes_completes_the_snapshot(
    chunks: list[bytes], cuts: list[int], place: int, flipped: int, cuts_again: list[int]
) -> None:
    """Also when the damage is in a length or in the end, and when only a part of a frame came before a restart."""
    data, checker = encoded(chunks), SnapshotChecker()
    place %= len(data)
    take_all(checker, data[:place] + bytes([data[place] ^ flipped]) + data[place + 1 :], cuts)
    checker.rewind()
    assert checker.offset == checker.good
    assert take_all(checker, data[checker.good :], cuts_again)
    assert checker.complete
    assert (checker.head, checker.digests) == (HEAD, [digest(chunk) for chunk in chunks])


@given(chunks, st.binary(min_size=1, max_size=9))
def test_bytes_after_the_end_are_damage_and_the_snapshot_stays_complete(chunks: list[bytes], more: bytes) -> None:
    data, checker = encoded(chunks), SnapshotChecker()
    with pytest.raises(OperationalError, match="continues after its end"):
        checker.take(data + more)
    checker.rewind()
    assert (checker.good, checker.offset, checker.complete) == (len(data), len(data), True)


@given(chunks)
def test_equal_snapshots_have_equal_bytes(chunks: list[bytes]) -> None:
    assert encoded(chunks) == encoded([bytes(chunk) for chunk in chunks])


@given(st.binary(max_size=80))
def test_bytes_that_are_no_snapshot_are_never_one(data: bytes) -> None:
    for start in (b"", MAGIC, MAGIC + framed(b"")):
        checker = SnapshotChecker()
        take_all(checker, start + data)
        assert not checker.complete


# Descriptions of damage


def whats_wrong(data: bytes) -> str:
    with pytest.raises(OperationalError) as caught:
        SnapshotChecker().take(data)
    return str(caught.value)


def test_a_file_of_another_kind_is_named_so() -> None:
    assert whats_wrong(b"SQLite format 3\0") == "it is no snapshot"


def test_chunks_of_another_snapshot_are_found_by_the_digests_of_the_end() -> None:
    head, end = opening(HEAD), closing(map(digest, (b"one", b"two")))
    assert whats_wrong(head + framed(b"one") + end) == "its chunks are not those that were written"
    exchanged = head + framed(b"two") + framed(b"one") + end
    assert whats_wrong(exchanged) == "its chunks are not those that were written"


def test_a_too_large_head_or_end_is_refused_before_it_is_received() -> None:
    size = (64 << 20) + 1
    assert whats_wrong(MAGIC + FRAME.pack(size, 0)) == f"its head has {size} bytes"
    assert whats_wrong(opening(HEAD) + framed(b"") + FRAME.pack(size, 0)) == f"its end has {size} bytes"


def test_another_version_is_refused_and_named() -> None:
    head = Head(SNAPSHOT_VERSION + 1, HEAD.group, HEAD.replicas, HEAD.checkpoint)
    assert (
        whats_wrong(opening(head))
        == f"it has format {SNAPSHOT_VERSION + 1}, this PyDSM reads format {SNAPSHOT_VERSION}"
    )


def test_a_head_or_an_end_that_does_not_parse_is_damaged() -> None:
    with pytest.raises(OperationalError, match="its head is damaged"):
        decode_head(b"\xc1")
    with pytest.raises(OperationalError, match="its end is damaged"):
        decode_end(b"\xc1")
    assert whats_wrong(MAGIC + framed(b"")).startswith("its head is damaged")


def test_the_format_has_not_changed() -> None:
    """Replicas of other versions fetch these bytes: a difference requires a new SNAPSHOT_VERSION."""
    assert digest(encoded([b"chunk", b"other"])).hex() == (
        "ebe7f636e1238c496e568298a3e0b029785913deaa96ffd70de106398efb9776"
    )


@given(chunks)
def test_chunks_are_read_as_they_were_written(chunks: list[bytes]) -> None:
    file = BytesIO(encoded(chunks))
    assert list(read_chunks(file, map(digest, chunks))) == chunks


def test_chunks_that_were_changed_since_they_were_found_good_are_not_given() -> None:
    data = encoded([b"one", b"two"]).replace(b"two", b"twO")
    with pytest.raises(OperationalError, match="changed while it was read"):
        list(read_chunks(BytesIO(data), map(digest, (b"one", b"two"))))
