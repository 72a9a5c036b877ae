"""One machine of the group: a disk that survives, and the lives of the replica on it, one after another.

Decides when a life begins, what reaches it and when it ends. What it is, and what it does, stands in `life`.
"""

from collections import deque
from collections.abc import Callable, Sequence

from pydsm.core.types.checkpoint import Checkpoint
from pydsm.core.types.effects import Record
from pydsm.core.types.ids import ReplicaId, Tick
from pydsm.core.types.messages import Frontier, Message
from pydsm.sim.base import describe
from pydsm.sim.base.settings import TICK_US
from pydsm.sim.base.violation import Violation
from pydsm.sim.cluster.life import ClientSubmission, Died, Life, ReplicaFactory
from pydsm.sim.cluster.starts import Refused
from pydsm.sim.devices.damage import Damage
from pydsm.sim.devices.disk import DiskCopy, SimulatedDisk
from pydsm.sim.devices.handshakes import SimulatedHandshake, StartStamp


class Host:
    """Starts, drives, pauses, kills. `clock_rate` and `disk.sync_us` may be changed at any time."""

    def __init__(self, id: int, parts: ReplicaFactory, disk: SimulatedDisk) -> None:
        self.id = id
        self.disk = disk
        self.life: Life | None = None
        self.clock_rate = parts.context.settings.clock_rates[id]
        self._parts = parts
        self._context = parts.context
        self._damage = Damage(
            f"r{id}", self._context.settings.seed, lambda: parts.make_replica(id), self._context.counts
        )
        self._lives = 0
        self._pauses = 0
        self._deaf = False
        self._backlog: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._doom = 0
        self._down_us: int | None = 0
        self.dead = False
        """It never starts again."""
        self._put_back = False
        """Whether an older copy of the disk was ever put back."""

    # life and death

    def start(self) -> None:
        """Begin a life from what the disk has, if there is none."""
        if self.life is not None or self.dead:
            return
        self._lives += 1
        life = self.life = Life(self, self._parts, self._lives)
        if self._lives > 1:
            self._context.counts.restarts += 1
            snapshots = self.disk.load_snapshots()
            self._damage.look(self.disk.load(), [one.checkpoint for one in snapshots])
            life.begin_with(snapshots)
            self._run(life.performer.pump)

    def crash(self, down_us: int | None) -> None:
        """End the life, if there is one; start again after `down_us`, or only at the heal if that is None."""
        life, self.life = self.life, None
        if life is None:
            return
        self._context.counts.crashes += 1
        self._context.say(life.name, "dies")
        self._context.counts.add_replica(life.core.counters)
        for _, given in self._backlog:
            if isinstance(given[0], ClientSubmission):
                life.note(given[0])
        self._backlog.clear()
        self._doom = 0
        self.disk.crash()
        life.end()
        if down_us is not None:
            self._context.schedule.after(down_us, self.start)

    def schedule_crash(self, calls: int, down_us: int) -> None:
        """Let the life end inside the `calls`-th call that its performer makes from now on."""
        self._doom, self._down_us = calls, down_us

    def die(self, down_us: int | None) -> None:
        """End the life inside the call of its performer that is under way. Raises Died."""
        self._down_us = down_us
        raise Died

    def die_for_ever(self) -> None:
        """End the life, and never begin another one."""
        self.dead = True
        self._context.counts.deaths += 1
        self.crash(None)

    def moment(self) -> None:
        """A moment at which a doomed life may end. Raises Died."""
        if self._doom:
            self._doom -= 1
            if not self._doom:
                raise Died

    def cancel_crash(self) -> None:
        """Nothing ends any more."""
        self._doom = 0

    def pause(self, deaf: bool) -> None:
        """Handle nothing until as many `resume` have come."""
        self._pauses += 1
        self._deaf = deaf

    def resume(self) -> None:
        """Go on with what has waited, when this ends the last pause."""
        if self._pauses:
            self._pauses -= 1
            if not self._pauses:
                while self._backlog and not self._pauses:
                    act, given = self._backlog.popleft()
                    act(*given)

    def resume_for_good(self) -> None:
        """End all pauses."""
        self._pauses = min(self._pauses, 1)
        self.resume()

    # events

    def greeted(self, sender: ReplicaId, greeting: SimulatedHandshake) -> None:
        """A greeting has arrived."""
        life = self.life
        if life is None or life.starts is None:
            return
        if not self._pauses:
            self._run(life.starts.greeted, sender, greeting)
        elif not self._deaf:
            self._backlog.append((self.greeted, (sender, greeting)))

    def deliver(self, sender: ReplicaId, message: Message, stamp: StartStamp = None) -> None:
        """A message has arrived; `stamp` says of which start it is, where starts are looked at."""
        life = self.life
        if life is None:
            self._context.counts.to_nobody += 1
        elif self._pauses:
            if not self._deaf:
                self._backlog.append((self.deliver, (sender, message, stamp)))
        elif life.starts is not None and not (stamp is not None and life.starts.hears(sender, stamp)):
            self._context.counts.to_nobody += 1
        else:
            self._context.counts.delivered += 1
            if self._context.tracing:
                self._context.say(life.name, f"from r{sender}: {describe.message(message)}")
            self._run(self._receive, life, sender, message)

    def hear_clock(self, sender: ReplicaId, clock_ms: int) -> None:
        """What a peer's wall clock shows."""
        if self.life is not None:
            self.life.clock.hear(sender, clock_ms)

    @staticmethod
    def _receive(life: Life, sender: ReplicaId, message: Message) -> None:
        life.core.receive(sender, message)
        if isinstance(message, Frontier):
            life.clock.hear(sender, message.clock_ms)
        life.performer.pump()

    def tick(self) -> None:
        """The period between two ticks of the runtime is over; the clock goes on in a pause as well."""
        life = self.life
        if life is not None:
            life.clock_us += int(self._context.settings.tick_period_us * self.clock_rate)
            if not self._pauses:
                self._run(self._tick, life)

    @staticmethod
    def _tick(life: Life) -> None:
        life.clock.look()
        if life.starts is not None and not life.starts.tick():
            return
        life.core.tick(Tick(life.clock_us // TICK_US), life.clock.wall_ms())
        life.propose_checkpoint()
        life.performer.pump()

    def submit(self, submission: ClientSubmission) -> None:
        """A client asks for a command."""
        life = self.life
        if life is None:
            self._context.schedule.after(self._context.settings.client_us, submission.refused)
        elif self._pauses:
            self._backlog.append((self.submit, (submission,)))
        else:
            life.take(submission)
            gather_us = self._context.settings.gather_us
            if not gather_us:
                self._run(life.flush)
            elif not life.gathering:
                life.gathering = True
                self._context.schedule.after(gather_us, self._gathered, life)

    def _gathered(self, life: Life) -> None:
        if life is not self.life:
            return
        if self._pauses:
            self._backlog.append((self._gathered, (life,)))
        else:
            self._run(life.flush)

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """What the performer of the present life asks of its disk."""
        life = self.life
        assert life is not None
        if self.disk.sync_us:
            self.disk.write(records, lambda: self._written(life, done))
        else:
            self.disk.write(records, done)

    def _written(self, life: Life, done: Callable[[], None]) -> None:
        if life is not self.life:
            return
        if self._pauses:
            self._backlog.append((self._written, (life, done)))
        else:
            self._run(self._after_write, done)

    def call(self, life: Life, act: Callable[..., None], *given: object) -> None:
        """Something that a life was waiting for is done."""
        if life is not self.life:
            return
        if self._pauses:
            self._backlog.append((self.call, (life, act, *given)))
        else:
            self._run(act, *given)

    def begin_again(self) -> None:
        """The snapshot of a peer takes the place of what the disk has up to there, and a new life begins with it."""
        life = self.life
        assert life is not None
        fetched, self.disk.fetched = self.disk.fetched, None
        assert fetched is not None
        self.crash(None)
        self.disk.fetched = fetched
        checkpoint = self.disk.adopt(self._parts.watch.at_checkpoint[fetched.number])
        self._parts.watch.adopted(self.id, checkpoint)
        self._context.counts.snapshots_installed += 1
        self._context.say(life.name, f"installs {checkpoint}")
        self.start()

    def snapshot_written(self, life: Life, checkpoint: Checkpoint) -> None:
        """The disk has it."""
        if life is not self.life:
            return
        if self._pauses:
            self._backlog.append((self.snapshot_written, (life, checkpoint)))
        else:
            self._run(life.taken, checkpoint)

    def _after_write(self, done: Callable[[], None]) -> None:
        self.moment()
        done()

    def _run(self, act: Callable[..., None], *given: object) -> None:
        """Everything that calls the core goes through here: a life may end in it, and may have room afterwards."""
        if self.life is not None:
            self.life.core.advance(Tick(self.life.clock_us // TICK_US))
        try:
            act(*given)
            life = self.life
            if life is not None and not life.gathering and life.batcher.may_propose:
                life.flush()
        except Died:
            self._context.counts.crashes_inside += 1
            self.crash(self._down_us)
        except Refused as refused:
            self._refused(str(refused))

    # disks that are put back

    def put_back(self, copy: DiskCopy, down_us: int) -> None:
        """The machine dies, and starts again with an older copy of its disk."""
        self.crash(None)
        self.disk.put_back(copy)
        self._put_back = True
        self._context.counts.put_backs += self.disk.newest is not None
        self._context.schedule.after(down_us, self.start)

    def _refused(self, reason: str) -> None:
        """The operator puts the newest disk back. That may be refused once, if the older one's start was met."""
        life = self.life
        assert life is not None
        if not self._put_back:
            raise Violation("refused", f"{life.name} is refused on a disk that was never put back: {reason}")
        self._context.say(life.name, f"is refused: {reason}")
        self._context.counts.put_backs_refused += 1
        self.crash(None)
        self.disk.put_newest_back()
        self._context.schedule.after(self._context.settings.farthest_us, self.start)
