"""What waits for a peer: when it is called slow, and that this is said once."""

import logging

import pytest

from pydsm.core.ids import ReplicaId
from pydsm.transport.address import Address
from pydsm.transport.backlog import Backlog
from pydsm.transport.limits import TransportLimits


def backlog() -> Backlog:
    return Backlog(ReplicaId(1), Address("h", 1), TransportLimits(peer_queue_bytes_max=10_000))


def test_a_peer_that_hovers_at_the_limit_is_called_slow_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    waiting = backlog()
    dropped = [
        waiting.take(b"x" * 100, connected=True, elsewhere_bytes=size) for size in (9990, 9000, 9990, 8000, 9990)
    ]
    assert dropped == [1, 0, 1, 0, 1]
    assert caplog.text.count("is too slow") == 1


def test_a_peer_that_had_caught_up_and_falls_behind_again_is_called_slow_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    waiting = backlog()
    for size in (9990, 100, 9990):
        waiting.take(b"x" * 100, connected=True, elsewhere_bytes=size)
    assert caplog.text.count("is too slow") == 2
