"""The queue of a peer: when the peer is logged as slow, and that this is logged once."""

import logging

import pytest

from pydsm.transport.address import Address
from pydsm.transport.backlog import Backlog
from pydsm.transport.frames import Stamp
from pydsm.transport.limits import TransportLimits


def backlog() -> Backlog:
    return Backlog("r2", Address("h", 1), TransportLimits(peer_queue_bytes_max=10_000))


def test_a_peer_that_hovers_at_the_limit_is_called_slow_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    waiting = backlog()
    dropped = [
        waiting.enqueue(b"x" * 100, connected=True, buffered_bytes=size) for size in (9990, 9000, 9990, 8000, 9990)
    ]
    assert dropped == [1, 0, 1, 0, 1]
    assert caplog.text.count("is too slow") == 1


def test_a_peer_that_had_caught_up_and_falls_behind_again_is_called_slow_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    waiting = backlog()
    for size in (9990, 100, 9990):
        waiting.enqueue(b"x" * 100, connected=True, buffered_bytes=size)
    assert caplog.text.count("is too slow") == 2


def test_messages_that_can_wait_are_due_with_the_first_that_cannot_and_not_after_it_left() -> None:
    waiting = backlog()
    due = []
    for can_wait in (True, False, True):
        waiting.enqueue(b"x" * 100, connected=True, can_wait=can_wait)
        due.append(waiting.is_due)
    assert due == [False, True, True]
    assert waiting.next_frame(Stamp(1, 0))[1] == 3
    waiting.enqueue(b"x" * 100, connected=True, can_wait=True)
    assert not waiting.is_due


def test_many_bytes_that_could_wait_are_due() -> None:
    waiting = backlog()
    waiting.enqueue(b"x" * 3000, connected=True, can_wait=True)
    assert not waiting.is_due
    waiting.enqueue(b"x" * 3000, connected=True, can_wait=True)
    assert waiting.is_due
