"""Every request is sent at least twice while processes are killed, and is executed once."""

from pathlib import Path

import pytest

from tests.integration.twice import run


@pytest.mark.parametrize("replicas", [3, 5])
async def test_every_request_sent_twice_through_killed_replicas_counts_once(tmp_path: Path, replicas: int) -> None:
    assert await run(replicas, 6, tmp_path, seed=replicas, say=lambda text: None) > 100
