"""Runs that once broke an invariant, as the simulator wrote them down: none may break again.

A new one: copy the file that `pydsm simulate` or a soak has written into `found/`, and describe it here.
"""

from pathlib import Path

import pytest

from pydsm.sim.tools import failure_report
from pydsm.sim.tools.search import Search

FOUND = Path(__file__).parent / "found"

STORIES = {
    "outbid-for-ever": "Two replicas whose backoff was shorter than their recovery timeout outbid each other for ever, "
    "because thrifty recoveries asked a slow replica for its vote.",
    "more-than-they-can-do": "Two replicas far apart were given more than they could do. What waited to be proposed "
    "when the load ended took longer than the bound, which had not counted it.",
    "began-inside-a-component": "A replica began again at a barrier inside a component, without members that it had "
    "executed before, and came to another checkpoint than the others.",
    "position-that-went-back": "A barrier did not cover a nop that the checkpoint before had covered, so records were "
    "purged that the newer checkpoint did not have.",
    "slower-than-every-timer": "Of seven, far apart, the leader of one instance died for ever. Each recovery gave up a "
    "member of its quorum after a time that never grew and was shorter than the way there, so none came to its end.",
    "time-stood-still-between-ticks": "Loops got no processor for 200 ms of every 260. What came after such a pause "
    "was heard of at the tick before it: so it was late at the next tick, and no measured round trip had the pause in "
    "it. Replicas recovered each other's instances before a leader could have its answers, for ever.",
    "repeated-for-ever": "Links carried a batch in 80 ms. A dead member had been so near that no wait was longer than "
    "the configuration's 200 ms. Six open instances, each repeated so often, and the answers to all that was "
    "repeated, were more than the links could carry: queues stayed full, and nothing new came through, for ever.",
    "paused-by-a-strike": "An adversary paused a replica when its message left. The check of memory took it for "
    "undisturbed, and asked it to drop what it could not drop.",
    "stamped-before-any-agreed-time": "A replica that had executed no checkpoint proposed batches. Checkpoints of "
    "long before were executed first and set agreed time, which limits the time of a batch: so the last use of its "
    "session was noted too early, and the session was forgotten.",
    "passed-while-the-pipeline-was-full": "While the pipeline was full, commands of a connection waited behind one of "
    "it that was in flight. What came meanwhile was held; then the commands that had waited were put behind that.",
    "given-up-before-a-checkpoint": "A client gave a request up, a checkpoint passed, and its instance came later: not "
    "executed, and rightly so; the check took that for a lost command.",
}


def test_every_found_run_has_a_description() -> None:
    assert {path.stem for path in FOUND.glob("*.json")} == set(STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_a_run_that_once_failed_holds_now(name: str) -> None:
    saved = failure_report.load(FOUND / f"{name}.json")
    finding = Search().play(saved.plan).finding
    assert finding is None, f"{STORIES[name]} Then: {saved.what}"
