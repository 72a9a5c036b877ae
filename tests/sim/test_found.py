"""Every run that once broke something is kept in `found/` under the name of its story, and must stay mended."""

from pathlib import Path

import pytest

from pydsm.sim import story
from pydsm.sim.search import Search

FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_a_run_that_once_broke_something_holds_every_invariant(path: Path) -> None:
    """`outbid-for-ever`: two thrifty recoveries with a patience that never grew, one voter slow (seed 1795477752266)."""
    run = Search().play(story.load(path).plan)
    assert run.finding is None, run.finding
