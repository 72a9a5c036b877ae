"""Runs that once violated an invariant, as the simulator saved them: none may fail again.

To add one, copy the file that `pydsm simulate` or a soak has written to `found/`, and describe it here.
"""

from pathlib import Path

import pytest

from pydsm.sim.tools import failure_report
from pydsm.sim.tools.search import Search

FOUND = Path(__file__).parent / "found"

STORIES = {
    "outbid-for-ever": "Two replicas whose backoff was shorter than their recovery timeout outbid each other for "
    "ever, because thrifty recoveries asked a slow replica for its vote.",
    "more-than-they-can-do": "Two replicas far apart got more load than they could handle. The bound on the time to "
    "heal did not include the requests that still waited to be proposed when the load ended.",
    "began-inside-a-component": "A replica restarted at a barrier inside a component, without members that it had "
    "executed before, and reached another checkpoint than the others.",
    "position-that-went-back": "A barrier did not cover a nop that the checkpoint before had covered, so records were "
    "purged that the newer checkpoint did not have.",
    "slower-than-every-timer": "In a group of seven, far apart, the leader of one instance never restarted. Each "
    "recovery replaced a member of its quorum after a constant time that was shorter than the round trip, so none "
    "completed.",
    "time-stood-still-between-ticks": "Event loops got no processor time for 200 ms of every 260. Messages that "
    "arrived after such a pause were handled with the time of the tick before it: so they were overdue at the next "
    "tick, and no measured round trip included the pause. Replicas recovered each other's instances before a leader "
    "could get its answers, for ever.",
    "repeated-for-ever": "Links carried a batch in 80 ms. The measured round trip to a dead member was so short that "
    "no timeout was longer than the configured 200 ms. Repeats of six open instances, and the answers to all repeats, "
    "exceeded the capacity of the links: queues stayed full, and no new message arrived, for ever.",
    "paused-by-a-strike": "A trigger paused a replica after its message was sent. The memory checker did not count "
    "this as a fault, and required the replica to drop instances that it could not drop.",
    "stamped-before-any-agreed-time": "A replica that had executed no checkpoint proposed batches. Much older "
    "checkpoints were executed first and set agreed time, which limits the time of a batch: so the recorded last use "
    "of its session was too early, and the session expired.",
    "behind-all-that-wait-for-it": "A Commit was lost. So many instances that were committed and waited for it were "
    "before it that no scan for undecided instances reached it, and its replica executed nothing any more.",
    "passed-while-the-pipeline-was-full": "While the pipeline was full, commands of a connection waited for one of "
    "its commands in flight. Commands that arrived meanwhile were held, and later queued before those that had "
    "waited.",
    "given-up-before-a-checkpoint": "A client gave up a request, a checkpoint was executed, and the request's "
    "instance afterwards. The request was correctly not executed, but the checker reported a lost command.",
}


def test_every_found_run_has_a_description() -> None:
    assert {path.stem for path in FOUND.glob("*.json")} == set(STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_a_run_that_once_failed_holds_now(name: str) -> None:
    saved = failure_report.load(FOUND / f"{name}.json")
    finding = Search().play(saved.plan).finding
    assert finding is None, f"{STORIES[name]} Then: {saved.what}"
