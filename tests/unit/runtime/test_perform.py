"""Durable before visible: the order in which effects are performed, for any delay of the disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from pydsm.core.types.checkpoint import Checkpoint, Position
from pydsm.core.types.effects import Abort, Effects, Execute, Record, ReservationRecord, Send, TakeCheckpoint, Transfer
from pydsm.core.types.ids import InstanceId, ReplicaId
from pydsm.core.types.messages import Batch, Footprint, Message, Waiting
from pydsm.runtime.perform import Performer

ME, PEER, OTHER = ReplicaId(0), ReplicaId(1), ReplicaId(2)


def record(number: int) -> ReservationRecord:
    return ReservationRecord(number)


def message(number: int) -> Waiting:
    return Waiting(InstanceId(PEER, 1), number)


def to_peer(number: int) -> Send:
    return Send((PEER,), message(number))


def execution(number: int) -> Execute:
    return Execute(InstanceId(PEER, number), Batch((), (), Footprint()))


@dataclass
class Stage:
    """A core with effects set by the test, and an environment of the performer that records its calls."""

    lazy_records_max: int = 4096
    holding: bool = True
    story: list[str] = field(default_factory=list)
    effects: Effects = field(default_factory=Effects)
    done: Callable[[], None] | None = None
    on_receive: Callable[[], None] = field(default=lambda: None)
    on_execute: Callable[[], None] = field(default=lambda: None)

    def __post_init__(self) -> None:
        self.performer = Performer(ME, self, self, self, self, self.lazy_records_max)

    def turn(self, **effects: list[object]) -> None:
        """One event and its effects."""
        self.ask(**effects)
        self.performer.pump()

    def ask(self, **effects: list[object]) -> None:
        for kind, values in effects.items():
            getattr(self.effects, kind).extend(values)

    def written(self) -> None:
        """The disk is done."""
        done, self.done = self.done, None
        assert done is not None
        done()

    def take(self) -> list[str]:
        taken, self.story = self.story, []
        return taken

    # Core

    def receive(self, sender: ReplicaId, message: Message) -> None:
        assert isinstance(message, Waiting)
        self.story.append(f"received {message.unchanged} of {sender}")
        self.on_receive()

    def take_effects(self) -> Effects:
        taken, self.effects = self.effects, Effects()
        return taken

    # Disk, network, application

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        assert self.done is None, "the disk is given a second write before the first is done"
        numbers = [one.up_to for one in records if isinstance(one, ReservationRecord)]
        self.story.append(f"write {numbers}")
        if self.holding:
            self.done = done
        else:
            done()

    def send(self, to: tuple[ReplicaId, ...], message: Message) -> None:
        assert isinstance(message, Waiting)
        self.story.append(f"send {message.unchanged} to {list(to)}")

    def execute(self, execution: Execute) -> None:
        self.story.append(f"execute {execution.id.index}")
        self.on_execute()

    def checkpoint(self, taken: TakeCheckpoint) -> None:
        self.story.append(f"checkpoint {taken.checkpoint.number}")

    def transfer(self, transfer: Transfer) -> None:
        self.story.append(f"transfer {type(transfer).__name__}")

    def abort(self, abort: Abort) -> None:
        self.story.append(f"abort {abort.id.index}")


def test_a_checkpoint_is_taken_between_the_executions_before_and_behind_it() -> None:
    stage = Stage()
    mark = TakeCheckpoint(Checkpoint(7, execution(2).id, Position((0, 0, 0)), (0, 0, 0), 0))
    stage.turn(records=[record(1)], executions=[execution(1), mark, execution(3)])
    assert stage.take() == ["write [1]"]
    stage.written()
    assert stage.take() == ["execute 1", "checkpoint 7", "execute 3"]


def test_a_message_waits_for_the_records_of_its_turn() -> None:
    stage = Stage()
    stage.turn(records=[record(1)], sends=[to_peer(1)])
    assert stage.take() == ["write [1]"]
    stage.written()
    assert stage.take() == ["send 1 to [1]"]


def test_an_early_message_does_not() -> None:
    stage = Stage()
    stage.turn(early=[to_peer(1)], records=[record(1)])
    assert stage.take() == ["send 1 to [1]", "write [1]"]


def test_executions_and_aborts_wait_for_records_and_follow_the_messages() -> None:
    stage = Stage()
    abort = Abort(InstanceId(ME, 9), ())
    stage.turn(records=[record(1)], aborts=[abort], executions=[execution(1), execution(2)], sends=[to_peer(1)])
    assert stage.take() == ["write [1]"]
    stage.written()
    assert stage.take() == ["send 1 to [1]", "execute 1", "execute 2", "abort 9"]


def test_a_turn_without_records_is_visible_immediately() -> None:
    stage = Stage()
    stage.turn(sends=[to_peer(1)], executions=[execution(1)])
    assert stage.take() == ["send 1 to [1]", "execute 1"]


def test_a_turn_without_records_waits_behind_one_that_is_being_written() -> None:
    stage = Stage()
    stage.turn(records=[record(1)])
    stage.turn(sends=[to_peer(2)])
    assert stage.take() == ["write [1]"]
    stage.written()
    assert stage.take() == ["send 2 to [1]"]


def test_turns_that_gathered_meanwhile_are_the_next_group() -> None:
    stage = Stage()
    stage.turn(records=[record(1)], sends=[to_peer(1)])
    stage.turn(records=[record(2)], sends=[to_peer(2)])
    stage.turn(records=[record(3), record(4)], sends=[to_peer(3)])
    assert (stage.take(), stage.performer.turns_waiting) == (["write [1]"], 3)
    stage.written()
    assert stage.take() == ["send 1 to [1]", "write [2, 3, 4]"]
    stage.written()
    assert (stage.take(), stage.performer.turns_waiting) == (["send 2 to [1]", "send 3 to [1]"], 0)


def test_early_messages_leave_while_the_disk_is_busy_with_others() -> None:
    stage = Stage()
    stage.turn(records=[record(1)])
    stage.take()
    stage.turn(early=[to_peer(2)], records=[record(2)])
    assert stage.take() == ["send 2 to [1]"]


def test_lazy_records_wait_for_company_and_go_first() -> None:
    stage = Stage()
    stage.turn(lazy_records=[record(1)], executions=[execution(1)])
    assert stage.take() == ["execute 1"]
    stage.turn(lazy_records=[record(2)], records=[record(3)])
    assert stage.take() == ["write [1, 2, 3]"]


def test_lazy_records_of_turns_in_a_group_keep_their_place() -> None:
    stage = Stage()
    stage.turn(records=[record(1)])
    stage.turn(lazy_records=[record(2)])
    stage.turn(lazy_records=[record(3)], records=[record(4)])
    stage.turn(lazy_records=[record(5)])
    stage.written()
    assert stage.take() == ["write [1]", "write [2, 3, 4, 5]"]


def test_too_many_lazy_records_are_written_without_company() -> None:
    stage = Stage(lazy_records_max=2)
    stage.turn(lazy_records=[record(1), record(2), record(3)])
    assert stage.take() == []
    stage.turn(sends=[to_peer(4)])
    assert stage.take() == ["write [1, 2, 3]"]
    stage.written()
    assert stage.take() == ["send 4 to [1]"]


def test_lazy_records_are_written_when_the_replica_stops() -> None:
    stage = Stage()
    stage.performer.finish()
    stage.turn(lazy_records=[record(1)])
    stage.turn(lazy_records=[record(2)])
    assert stage.take() == []
    stage.performer.finish()
    assert stage.take() == ["write [1, 2]"]


def test_a_message_to_the_own_replica_arrives_when_the_turn_is_durable() -> None:
    stage = Stage()
    stage.turn(records=[record(1)], sends=[Send((ME,), message(1)), Send((PEER, ME, OTHER), message(2))])
    assert stage.take() == ["write [1]"]
    stage.written()
    assert stage.take() == ["received 1 of 0", "received 2 of 0", "send 2 to [1, 2]"]


def test_effects_of_a_message_to_the_own_replica_are_performed_after_its_turn() -> None:
    stage = Stage()
    stage.on_receive = lambda: stage.ask(sends=[to_peer(7)])
    stage.turn(records=[record(1)], sends=[Send((ME,), message(1)), to_peer(2)], executions=[execution(1)])
    stage.written()
    assert stage.take() == ["write [1]", "received 1 of 0", "send 2 to [1]", "execute 1", "send 7 to [1]"]


@pytest.mark.parametrize("holding", [False, True])
def test_an_application_that_proposes_while_it_executes_does_not_overtake_the_group(holding: bool) -> None:
    stage = Stage(holding=True)

    def propose_once() -> None:
        stage.on_execute = lambda: None
        stage.turn(sends=[to_peer(7)], executions=[execution(7)])

    stage.on_execute = propose_once
    stage.turn(records=[record(1)])
    stage.turn(records=[record(2)], executions=[execution(2)])
    stage.turn(executions=[execution(3)], sends=[to_peer(3)])
    stage.written()
    stage.holding = holding
    stage.written()
    story = ["write [1]", "write [2]", "execute 2", "send 3 to [1]", "execute 3", "send 7 to [1]", "execute 7"]
    assert stage.take() == story


def test_a_disk_that_completes_immediately_needs_no_further_pump() -> None:
    stage = Stage(holding=False)
    stage.on_receive = lambda: stage.ask(records=[record(2)], executions=[execution(2)])
    stage.turn(records=[record(1)], sends=[Send((ME,), message(1))], executions=[execution(1)])
    assert stage.take() == ["write [1]", "received 1 of 0", "execute 1", "write [2]", "execute 2"]
    assert stage.performer.turns_waiting == 0


def test_a_disk_that_fails_makes_nothing_visible() -> None:
    stage = Stage()
    stage.turn(records=[record(1)], sends=[to_peer(1)], executions=[execution(1)])
    stage.turn(sends=[to_peer(2)])
    assert stage.take() == ["write [1]"]


def test_an_error_of_the_application_does_not_stop_later_pumps() -> None:
    stage = Stage()

    def fail() -> None:
        raise ValueError("the machine broke")

    stage.on_execute = fail
    with pytest.raises(ValueError, match="the machine broke"):
        stage.turn(executions=[execution(1)])
    stage.turn(sends=[to_peer(2)])
    assert stage.take() == ["execute 1", "send 2 to [1]"]
