"""Every state of a data directory that a crash can leave is accepted, with all durable records."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from struct import Struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pydsm.core.types.effects import Record
from pydsm.core.types.errors import OperationalError
from pydsm.storage import sealing
from pydsm.storage import sqlite as store_module
from pydsm.storage.examination import DATABASE_NAME, LOG_NAME, Condition, examine
from pydsm.storage.seal import MARK_NAME, SEAL_NAME
from pydsm.storage.sqlite import SqliteStore
from pydsm.storage.wal import HEADER, checksum, read_log
from tests.documents import ROOT
from tests.unit.storage.records import IDENTITY, instance_record

COMMITS = 5
SECTOR = 512
FILES = (DATABASE_NAME, LOG_NAME, MARK_NAME, SEAL_NAME)

_numbers = count()


@dataclass(frozen=True, repr=False)
class Story:
    """The files of a store before and after its log was moved into the database, and the bytes of each commit."""

    before: dict[str, bytes]
    after: dict[str, bytes]
    ends: list[int]
    """Size of the log after so many commits."""
    marks: list[bytes]
    commits: list[list[Record]]

    def records(self, commits: int) -> list[Record]:
        return sorted((one for group in self.commits[:commits] for one in group), key=str)


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in FILES if (directory / name).is_file()}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    directory = tmp_path_factory.mktemp("story")
    store = SqliteStore(directory, IDENTITY)
    ends, marks = [(directory / LOG_NAME).stat().st_size], [(directory / MARK_NAME).read_bytes()]
    commits: list[list[Record]] = []
    for number in range(COMMITS):
        # one commit with a single record, and larger ones that need several pages
        group: list[Record] = [instance_record(1, 1 + 50 * number + one) for one in range(1 + 9 * number)]
        store.write(group)
        commits.append(group)
        ends.append((directory / LOG_NAME).stat().st_size)
        marks.append((directory / MARK_NAME).read_bytes())
    before = contents(directory)
    store.close()
    return Story(before, contents(directory), ends, marks, commits)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crashes")


def laid_out(place: Path, files: dict[str, bytes]) -> Path:
    directory = place / str(next(_numbers))
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def found(directory: Path) -> list[Record]:
    store = SqliteStore(directory, IDENTITY)
    try:
        return sorted(store.load(), key=str)
    finally:
        store.close()


def torn(data: bytes, start: int, zeroed: set[int]) -> bytes:
    """A log in which these sectors after `start` did not reach the disk."""
    result = bytearray(data)
    for sector in zeroed:
        first, last = max(start, sector * SECTOR), min(len(data), (sector + 1) * SECTOR)
        result[first:last] = bytes(max(0, last - first))
    return bytes(result)


@example(done=0, mark_age=0, share=1.0, missing={0})
@example(done=0, mark_age=0, share=1.0, missing=set(range(61)))
@example(done=2, mark_age=0, share=1.0, missing={0})
@settings(max_examples=60)
@given(
    done=st.integers(0, COMMITS - 1),
    mark_age=st.integers(0, COMMITS),
    share=st.floats(0, 1),
    missing=st.sets(st.integers(0, 60)),
)
def test_a_power_cut_while_a_commit_is_written_costs_at_most_that_commit(
    story: Story, place: Path, done: int, mark_age: int, share: float, missing: set[int]
) -> None:
    start, end = story.ends[done], story.ends[done + 1]
    cut = start + round(share * (end - start))
    zeroed = {start // SECTOR + one for one in missing}
    written = max(start, HEADER.size)  # SQLite synchronises the header before it writes the first frame
    log = torn(story.before[LOG_NAME][:cut], written, zeroed)
    mark = story.marks[max(0, done - mark_age)]
    directory = laid_out(place, {**story.before, LOG_NAME: log, MARK_NAME: mark})
    assert found(directory) in (story.records(done), story.records(done + 1))


@settings(max_examples=30)
@given(done=st.integers(1, COMMITS), share=st.floats(0, 1))
def test_a_torn_mark_is_no_damage(story: Story, place: Path, done: int, share: float) -> None:
    old, new = story.marks[done - 1], story.marks[done]
    cut = round(share * len(new))
    directory = laid_out(
        place, {**story.before, LOG_NAME: story.before[LOG_NAME][: story.ends[done]], MARK_NAME: new[:cut] + old[cut:]}
    )
    assert found(directory) == story.records(done)


@settings(max_examples=60)
@given(there=st.sets(st.integers(0, 80)), sealed=st.booleans(), mark=st.integers(0, COMMITS))
def test_a_power_cut_while_the_log_is_moved_into_the_database_costs_nothing(
    story: Story, place: Path, there: set[int], sealed: bool, mark: int
) -> None:
    new = story.after[DATABASE_NAME]
    old = story.before[DATABASE_NAME].ljust(len(new), b"\0")
    sectors = range(len(new) // SECTOR)
    database = b"".join((new if one in there else old)[one * SECTOR : (one + 1) * SECTOR] for one in sectors)
    files = {**story.before, DATABASE_NAME: database if sealed else story.before[DATABASE_NAME]}
    files[SEAL_NAME] = (story.after if sealed else story.before)[SEAL_NAME]
    files[MARK_NAME] = story.marks[mark]
    assert found(laid_out(place, files)) == story.records(COMMITS)


def test_a_power_cut_behind_that_costs_nothing(story: Story, place: Path) -> None:
    for mark in story.marks:
        for log in (None, b"", story.before[LOG_NAME]):
            files = {**story.after, MARK_NAME: mark}
            if log is not None:
                files[LOG_NAME] = log
            assert found(laid_out(place, files)) == story.records(COMMITS)


def test_a_header_that_was_cut_short_is_no_damage(story: Story, place: Path) -> None:
    start = story.before[LOG_NAME][:24]
    start = start[:16] + bytes([start[16] ^ 1]) + start[17:]  # it begins again with other salts
    words = "<II" if start[3] == 0x82 else ">II"
    header = start + Struct(">II").pack(*checksum(start, (0, 0), words))
    for size in range(33):
        log = header[:size]
        assert examine(laid_out(place, {**story.after, LOG_NAME: log})).damage == []


def test_a_cut_at_any_place_costs_no_commit_before_it_and_is_refused_if_one_was_marked_behind_it(
    story: Story, place: Path
) -> None:
    log = story.before[LOG_NAME]
    for cut in range(0, len(log), 331):
        directory = laid_out(place, {**story.before, LOG_NAME: log[:cut]})
        (said,) = examine(directory).damage
        assert LOG_NAME in said
        (directory / MARK_NAME).write_bytes(story.marks[sum(end <= cut for end in story.ends[1:])])
        assert examine(directory).damage == []


def test_a_damaged_frame_before_a_commit_that_was_durable_is_named(story: Story, place: Path) -> None:
    """With an old mark too, as a power cut may leave it, if a whole commit is between that frame and the last one."""
    log = story.before[LOG_NAME]
    report = read_log(laid_out(place, story.before) / LOG_NAME)
    for frame in range(1, report.frames + 1):
        for byte in (0, 5, 9, 17, 24, 1000):
            at = report.offset(frame) + byte
            damaged = log[:at] + bytes([log[at] ^ 4]) + log[at + 1 :]
            directory = laid_out(place, {**story.before, LOG_NAME: damaged})
            (said,) = examine(directory).damage
            assert f"frame {frame}, at byte {report.offset(frame)}, is damaged" in said
            if at < story.ends[-3]:
                (directory / MARK_NAME).write_bytes(story.marks[0])
                assert examine(directory).damage != []


def test_a_damaged_header_is_named(story: Story, place: Path) -> None:
    for at in range(32):
        log = bytearray(story.before[LOG_NAME])
        log[at] ^= 1
        directory = laid_out(place, {**story.before, LOG_NAME: bytes(log), MARK_NAME: story.marks[0]})
        assert examine(directory).damage == [f"{directory / LOG_NAME}: its header, at byte 0, is damaged"]


def test_every_page_of_the_database_is_compared(story: Story, place: Path) -> None:
    database = story.after[DATABASE_NAME]
    for page in range(len(database) // 4096):
        damaged = database[: page * 4096] + bytes(4096) + database[(page + 1) * 4096 :]
        directory = laid_out(place, {**story.after, DATABASE_NAME: damaged})
        where = f"{directory / DATABASE_NAME}: page {page + 1}, at byte {page * 4096}, is damaged"
        assert examine(directory).damage == [where]
        with pytest.raises(OperationalError, match=f"page {page + 1}, at byte .*keep the directory as evidence"):
            SqliteStore(directory, IDENTITY)


@pytest.mark.parametrize("files", ["before", "after"])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_empty_file_is_named(story: Story, place: Path, name: str, files: str) -> None:
    whole: dict[str, bytes] = getattr(story, files)
    if name not in whole:
        return
    directory = laid_out(place, {other: data for other, data in whole.items() if other != name})
    assert any(name in one for one in examine(directory).damage)
    (directory / name).write_bytes(b"")
    assert any(name in one for one in examine(directory).damage)
    with pytest.raises(OperationalError, match="keep the directory as evidence"):
        SqliteStore(directory, IDENTITY)


def test_files_of_different_times_are_refused(story: Story, place: Path) -> None:
    for name in (DATABASE_NAME, SEAL_NAME):
        other = story.before.get(name, b"")
        assert examine(laid_out(place, {**story.after, name: other})).damage != [], name


class Stop(Exception):
    """The process ends at this point."""


def test_a_directory_is_made_again_if_the_process_ended_while_it_was_made(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ["write_seal", "_connect", "write_first_mark"]
    for name in steps:
        for calls in (1, 2):
            directory = place / f"{name}{calls}"
            original, left = getattr(store_module, name), [calls]

            def step(*given: object, _original: object = original, _left: list[int] = left, **named: object) -> object:
                _left[0] -= 1
                if not _left[0]:
                    raise Stop
                assert callable(_original)
                return _original(*given, **named)

            monkeypatch.setattr(store_module, name, step)
            try:
                SqliteStore(directory, IDENTITY).close()
            except Stop:
                assert examine(directory).condition is not Condition.USED
            monkeypatch.undo()
            SqliteStore(directory, IDENTITY).close()
            assert examine(directory).condition is Condition.USED


WRITER = """
import sys
from pathlib import Path
from pydsm.storage import sealing
from pydsm.storage import sqlite as store_module
from pydsm.storage.sqlite import SqliteStore
from tests.unit.storage.records import IDENTITY, instance_record
sealing.LOG_FRAMES_MAX = 20
store = SqliteStore(Path(sys.argv[1]), IDENTITY)
for index in range(int(sys.argv[2]), 1 << 30):
    store.write([instance_record(1, index)])
    print(index, flush=True)
"""


def test_a_process_killed_at_any_time_loses_no_acknowledged_write(tmp_path: Path) -> None:
    first = 1
    for wanted in (1, 7, 23, 60):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, "-c", WRITER, str(tmp_path), str(first)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for _ in range(wanted):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, process.stdout.read().splitlines())])
        there = len(found(tmp_path))
        assert there in (acknowledged, acknowledged + 1)
        first = there + 1


def test_a_start_that_is_refused_leaves_everything_as_it_was(story: Story, place: Path) -> None:
    directory = laid_out(place, story.before)
    other = replace(IDENTITY, name="r2")
    for _ in range(2):
        with pytest.raises(OperationalError, match="belongs to another replica"):
            SqliteStore(directory, other)
    assert found(directory) == story.records(COMMITS)


@contextmanager
def file_size_limited(limit_bytes: int) -> Iterator[None]:
    """Writes beyond the limit fail as on a full disk, after the bytes that fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [*range(0, 8 * 4120, 700), 4 * 4120 - 1, 4 * 4120, 4 * 4120 + 24])
def test_a_disk_that_fills_up_during_a_commit_keeps_acknowledged_writes(tmp_path: Path, room: int) -> None:
    store = SqliteStore(tmp_path, IDENTITY)
    groups: list[list[Record]] = [[instance_record(1, index, b"x" * 3000)] for index in range(1, 50)]
    acknowledged = 0

    def write_until(end: int) -> None:
        nonlocal acknowledged
        for group in groups[acknowledged:end]:
            store.write(group)
            acknowledged += 1

    write_until(40)
    with file_size_limited((tmp_path / LOG_NAME).stat().st_size + room):
        with pytest.raises(OperationalError, match="free space or repair the disk"):
            write_until(50)
        with pytest.raises(OperationalError, match="start the replica again"):
            store.write(groups[-1])
        store.close()
    again = SqliteStore(tmp_path, IDENTITY)
    kept = again.load()
    assert kept[:acknowledged] == [one for group in groups[:acknowledged] for one in group]
    assert len(kept) == again.position <= acknowledged + 1, "only the write that failed may have come to its end"
    again.close()
    assert not examine(tmp_path).damage


def test_a_program_that_reads_the_log_of_a_killed_replica_holds_up_its_start(story: Story, place: Path) -> None:
    directory = laid_out(place, story.before)
    where = f"file:{directory / DATABASE_NAME}?mode=ro"
    with closing(sqlite3.connect(where, uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM instances").fetchone()
        with pytest.raises(OperationalError, match="is read by another program: end it"):
            SqliteStore(directory, IDENTITY)
    assert found(directory) == story.records(COMMITS)


def test_a_store_that_is_not_closed_leaves_its_log(tmp_path: Path) -> None:
    """An exception that ends a process must not look like damage at the next start."""
    store = SqliteStore(tmp_path, IDENTITY)
    store.write([instance_record(1, 1)])
    del store
    assert (tmp_path / LOG_NAME).stat().st_size > 0
    assert found(tmp_path) == [instance_record(1, 1)]


def test_the_log_is_moved_into_the_database_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "LOG_FRAMES_MAX", 10)
    store = SqliteStore(tmp_path, IDENTITY)
    sizes = []
    for index in range(1, 40):
        store.write([instance_record(1, index)])
        sizes.append((tmp_path / LOG_NAME).stat().st_size)
    assert 0 in sizes
    assert max(sizes) < 20 * 4200
    store.close()
    assert not (tmp_path / LOG_NAME).exists()
    assert len(found(tmp_path)) == 39
