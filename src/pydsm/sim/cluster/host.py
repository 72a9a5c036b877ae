"""Simulates one machine: a disk that survives crashes, and the processes of its replica, one after another.

Decides when a process starts, which events it receives, and when it crashes. The process is in `process`.
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
from pydsm.sim.cluster.process import ClientSubmission, Died, ReplicaFactory, ReplicaProcess
from pydsm.sim.cluster.starts import Refused
from pydsm.sim.devices.damage import Damage
from pydsm.sim.devices.disk import DiskCopy, SimulatedDisk
from pydsm.sim.devices.handshakes import SimulatedHandshake, StartStamp


class Host:
    """Starts, drives, pauses and crashes processes. `clock_rate` and `disk.sync_us` may be changed at any time."""

    def __init__(self, id: int, parts: ReplicaFactory, disk: SimulatedDisk) -> None:
        self.id = id
        self.disk = disk
        self.process: ReplicaProcess | None = None
        self.clock_rate = parts.context.settings.clock_rates[id]
        self._parts = parts
        self._context = parts.context
        self._damage = Damage(
            f"r{id}", self._context.settings.seed, lambda: parts.make_replica(id), self._context.counts
        )
        self._processes = 0
        self._pauses = 0
        self._deaf = False
        self._backlog: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._calls_until_crash = 0
        self._down_us: int | None = 0
        self.dead = False
        """Whether the replica never starts again."""
        self._put_back = False
        """Whether the disk was ever replaced by an older copy."""

    # starts and crashes

    def start(self) -> None:
        """Start a process from the data on the disk, if none runs."""
        if self.process is not None or self.dead:
            return
        self._processes += 1
        process = self.process = ReplicaProcess(self, self._parts, self._processes)
        if self._processes > 1:
            self._context.counts.restarts += 1
            snapshots = self.disk.load_snapshots()
            self._damage.look(self.disk.load(), [one.checkpoint for one in snapshots])
            process.load_disk(snapshots)
            self._run(process.performer.pump)

    def crash(self, down_us: int | None) -> None:
        """End the process, if one runs; start again after `down_us`, or only at the heal if that is None."""
        process, self.process = self.process, None
        if process is None:
            return
        self._context.counts.crashes += 1
        self._context.log(process.name, "crashes")
        self._context.counts.add_replica(process.core.counters)
        for _, given in self._backlog:
            if isinstance(given[0], ClientSubmission):
                process.note(given[0])
        self._backlog.clear()
        self._calls_until_crash = 0
        self.disk.crash()
        process.end()
        if down_us is not None:
            self._context.schedule.after(down_us, self.start)

    def schedule_crash(self, calls: int, down_us: int) -> None:
        """Crash the process inside the `calls`-th call that its performer makes from now on."""
        self._calls_until_crash, self._down_us = calls, down_us

    def die(self, down_us: int | None) -> None:
        """End the process inside the present call of its performer. Raises Died."""
        self._down_us = down_us
        raise Died

    def crash_for_ever(self) -> None:
        """End the process, and never start another one."""
        self.dead = True
        self._context.counts.deaths += 1
        self.crash(None)

    def crash_point(self) -> None:
        """A point at which a scheduled crash may happen. Raises Died."""
        if self._calls_until_crash:
            self._calls_until_crash -= 1
            if not self._calls_until_crash:
                raise Died

    def cancel_crash(self) -> None:
        """Cancel a scheduled crash."""
        self._calls_until_crash = 0

    def pause(self, deaf: bool) -> None:
        """Handle nothing until `resume` has been called as often as `pause`."""
        self._pauses += 1
        self._deaf = deaf

    def resume(self) -> None:
        """End one pause; after the last one, handle the events that waited."""
        if self._pauses:
            self._pauses -= 1
            if not self._pauses:
                while self._backlog and not self._pauses:
                    act, given = self._backlog.popleft()
                    act(*given)

    def resume_all(self) -> None:
        """End all pauses."""
        self._pauses = min(self._pauses, 1)
        self.resume()

    # events

    def receive_handshake(self, sender: ReplicaId, greeting: SimulatedHandshake) -> None:
        """A handshake has arrived."""
        process = self.process
        if process is None or process.starts is None:
            return
        if not self._pauses:
            self._run(process.starts.receive_handshake, sender, greeting)
        elif not self._deaf:
            self._backlog.append((self.receive_handshake, (sender, greeting)))

    def deliver(self, sender: ReplicaId, message: Message, stamp: StartStamp = None) -> None:
        """A message has arrived; `stamp` identifies the sender's start, if starts are checked."""
        process = self.process
        if process is None:
            self._context.counts.undeliverable += 1
        elif self._pauses:
            if not self._deaf:
                self._backlog.append((self.deliver, (sender, message, stamp)))
        elif process.starts is not None and not (stamp is not None and process.starts.accepts(sender, stamp)):
            self._context.counts.undeliverable += 1
        else:
            self._context.counts.delivered += 1
            if self._context.tracing:
                self._context.log(process.name, f"from r{sender}: {describe.message(message)}")
            self._run(self._receive, process, sender, message)

    def observe_clock(self, sender: ReplicaId, clock_ms: int) -> None:
        """Record the time that a peer's wall clock shows."""
        if self.process is not None:
            self.process.clock.record(sender, clock_ms)

    @staticmethod
    def _receive(process: ReplicaProcess, sender: ReplicaId, message: Message) -> None:
        process.core.receive(sender, message)
        if isinstance(message, Frontier):
            process.clock.record(sender, message.clock_ms)
        process.performer.pump()

    def tick(self) -> None:
        """Advance the clock by one period of the runtime, also in a pause, and tick the process."""
        process = self.process
        if process is not None:
            process.clock_us += int(self._context.settings.tick_period_us * self.clock_rate)
            if not self._pauses:
                self._run(self._tick, process)

    @staticmethod
    def _tick(process: ReplicaProcess) -> None:
        process.clock.update()
        if process.starts is not None and not process.starts.tick():
            return
        process.core.tick(Tick(process.clock_us // TICK_US), process.clock.wall_ms())
        process.propose_checkpoint()
        process.performer.pump()

    def submit(self, submission: ClientSubmission) -> None:
        """Handle a client's request."""
        process = self.process
        if process is None:
            self._context.schedule.after(self._context.settings.client_us, submission.refused)
        elif self._pauses:
            self._backlog.append((self.submit, (submission,)))
        else:
            process.take(submission)
            gather_us = self._context.settings.gather_us
            if not gather_us:
                self._run(process.flush)
            elif not process.gathering:
                process.gathering = True
                self._context.schedule.after(gather_us, self._gathered, process)

    def _gathered(self, process: ReplicaProcess) -> None:
        if process is not self.process:
            return
        if self._pauses:
            self._backlog.append((self._gathered, (process,)))
        else:
            self._run(process.flush)

    def write(self, records: Sequence[Record], done: Callable[[], None]) -> None:
        """Write records for the performer of the present process."""
        process = self.process
        assert process is not None
        if self.disk.sync_us:
            self.disk.write(records, lambda: self._written(process, done))
        else:
            self.disk.write(records, done)

    def _written(self, process: ReplicaProcess, done: Callable[[], None]) -> None:
        if process is not self.process:
            return
        if self._pauses:
            self._backlog.append((self._written, (process, done)))
        else:
            self._run(self._after_write, done)

    def call(self, process: ReplicaProcess, act: Callable[..., None], *given: object) -> None:
        """Run a callback of a process, if it still runs and is not paused."""
        if process is not self.process:
            return
        if self._pauses:
            self._backlog.append((self.call, (process, act, *given)))
        else:
            self._run(act, *given)

    def restart_from_snapshot(self) -> None:
        """Replace the disk's records by the fetched snapshot, and start a new process from it."""
        process = self.process
        assert process is not None
        fetched, self.disk.fetched = self.disk.fetched, None
        assert fetched is not None
        self.crash(None)
        self.disk.fetched = fetched
        checkpoint = self.disk.adopt(self._parts.invariants.at_checkpoint[fetched.number])
        self._parts.invariants.adopted(self.id, checkpoint)
        self._context.counts.snapshots_installed += 1
        self._context.log(process.name, f"installs {checkpoint}")
        self.start()

    def snapshot_written(self, process: ReplicaProcess, checkpoint: Checkpoint) -> None:
        """A snapshot of this process is durable."""
        if process is not self.process:
            return
        if self._pauses:
            self._backlog.append((self.snapshot_written, (process, checkpoint)))
        else:
            self._run(process.taken, checkpoint)

    def _after_write(self, done: Callable[[], None]) -> None:
        self.crash_point()
        done()

    def _run(self, act: Callable[..., None], *given: object) -> None:
        """Run anything that calls the core. The process may crash in it, or may be able to propose afterwards."""
        if self.process is not None:
            self.process.core.advance(Tick(self.process.clock_us // TICK_US))
        try:
            act(*given)
            process = self.process
            if process is not None and not process.gathering and process.batcher.may_propose:
                process.flush()
        except Died:
            self._context.counts.crashes_inside += 1
            self.crash(self._down_us)
        except Refused as refused:
            self._refused(str(refused))

    # older copies of the disk

    def put_back(self, copy: DiskCopy, down_us: int) -> None:
        """Crash the machine, and start it again with an older copy of its disk."""
        self.crash(None)
        self.disk.put_back(copy)
        self._put_back = True
        self._context.counts.put_backs += self.disk.newest is not None
        self._context.schedule.after(down_us, self.start)

    def _refused(self, reason: str) -> None:
        """Put the newest disk back, as an operator does. It is refused too if a peer has a record of the older one."""
        process = self.process
        assert process is not None
        if not self._put_back:
            raise Violation("refused", f"{process.name} is refused, but its disk is not an older copy: {reason}")
        self._context.log(process.name, f"is refused: {reason}")
        self._context.counts.put_backs_refused += 1
        self.crash(None)
        self.disk.put_newest_back()
        self._context.schedule.after(self._context.settings.farthest_us, self.start)
