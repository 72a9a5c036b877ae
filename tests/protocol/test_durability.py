"""Sentences of PROTOCOL section 6 that bind the core: durable before visible, and what a restart may not do."""

from tests.unit.core.helpers import at, writing
from tests.worlds import World


def test_a_group_of_one_finishes_after_a_restart_what_its_former_life_left_open() -> None:
    """ "After a restart a replica [...] recovers its own unfinished ones", also when there is nobody to ask."""
    world = World(1)
    world.propose(0, writing("key"))
    world.hosts[0].disk.holding = True
    unfinished = world.propose(0, writing("key", name="unfinished"))
    world.crash(0, after_write=True)
    world.restart(0)
    world.hosts[0].disk.holding = False
    world.propose(0, writing("key", name="later"))
    world.heal()
    assert unfinished == at(0, 2)
    assert [one.batch.commands for one in world.hosts[0].executed] == [(b"key",), (b"later",)]
