"""The measured cost of one durable write."""

from pathlib import Path

import pytest

from pydsm.core.types.errors import OperationalError
from pydsm.storage.sync_cost import sync_seconds


def test_a_sync_takes_some_time_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert 0 < sync_seconds(tmp_path, times=5) < 10
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match=r"cannot write to .*nowhere: No such file or directory"):
        sync_seconds(tmp_path / "nowhere")
