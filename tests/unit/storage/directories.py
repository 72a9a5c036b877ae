"""Data directories that tests change behind a store's back."""

import shutil
import sqlite3
from array import array
from contextlib import closing
from pathlib import Path

from pydsm.storage.examination import DATABASE_NAME
from pydsm.storage.seal import Seal, read_seal, write_seal
from pydsm.storage.wal import page_sum


def alter(directory: Path, statement: str) -> None:
    """Change the database of a closed store, and seal it, as if the store had written that."""
    with closing(sqlite3.connect(directory / DATABASE_NAME, isolation_level=None)) as database:
        database.execute(statement)
    reseal(directory)


def reseal(directory: Path) -> None:
    """Write a seal that matches the current database."""
    seal = read_seal(directory)
    assert seal is not None
    data = (directory / DATABASE_NAME).read_bytes()
    size = seal.page_bytes
    pages = [data[start : start + size] for start in range(0, len(data), size)]
    sums = array("I", [page_sum(number, page) for number, page in enumerate(pages, 1)])
    write_seal(directory, Seal(seal.generation + 1, size, seal.salts, seal.frames, sums))


def copy_of(directory: Path, to: Path) -> Path:
    """A copy of the files as a power failure or a killed process would leave them now."""
    return shutil.copytree(directory, to)
