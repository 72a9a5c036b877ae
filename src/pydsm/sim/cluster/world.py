"""Runs a whole group in one deterministic world: first the plan's faults, then the heal, then the final checks.

The world decides nothing: the plan has all faults and operations, and its seed determines the random choices of each
link and each disk. The same plan and the same code give the same run, line by line.
"""

import hashlib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import assert_never

from pydsm.core.log.conflicts import Relation
from pydsm.core.log.session_conflicts import with_sessions
from pydsm.core.replica import Replica
from pydsm.core.types.config import Config
from pydsm.core.types.effects import Record
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, merge
from pydsm.core.types.messages import Message
from pydsm.core.types.quorums import quorums
from pydsm.sim.base import plan as p
from pydsm.sim.base.context import Context, Trace
from pydsm.sim.base.counts import Counts
from pydsm.sim.base.history import Outcome, end_time
from pydsm.sim.base.schedule import EventSchedule
from pydsm.sim.base.violation import Violation
from pydsm.sim.checkers.invariants import Invariants
from pydsm.sim.checkers.linearizability import (
    LinearizabilityResult,
    Linearizable,
    NotLinearizable,
    Undecided,
    check,
)
from pydsm.sim.cluster.adversary import Adversary
from pydsm.sim.cluster.clients import SimulatedClients
from pydsm.sim.cluster.faults import Faults
from pydsm.sim.cluster.host import Host
from pydsm.sim.cluster.memory_checker import MemoryChecker
from pydsm.sim.cluster.process import ReplicaFactory, ReplicaProcess
from pydsm.sim.cluster.starts import ProcessStarts, Undetectable
from pydsm.sim.devices.disk import SimulatedDisk
from pydsm.sim.devices.handshakes import SimulatedHandshake, StartStamp
from pydsm.sim.devices.network import SimulatedNetwork
from pydsm.sim.workload.workload import RegisterWorkload, Workload

MakeReplica = Callable[[Config, Relation], Replica]
"""Creates the core of one process."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation as it is saved."""

    invariant: str
    what: str
    instances: tuple[InstanceId, ...]
    step: int
    at_us: int


@dataclass(frozen=True, slots=True)
class WorldRun:
    """The result of a run."""

    plan: p.Plan
    finding: Finding | None
    counts: Counts


class World:
    """One run of a plan. Call `run` once."""

    def __init__(
        self,
        plan: p.Plan,
        workload: Workload | None = None,
        *,
        relation: Relation | None = None,
        make_replica: MakeReplica = Replica,
        trace: Trace | None = None,
    ) -> None:
        self._plan = plan
        self._workload = workload or RegisterWorkload(Random(plan.settings.seed))
        self._context = Context(plan.settings, trace)
        self._context.walls.wrong = frozenset(one.replica for one in plan.faults if isinstance(one, p.ClockJump))
        self._schedule: EventSchedule = self._context.schedule
        self._relation = with_sessions(relation or plan.settings.make_relation())
        self._make_replica = make_replica
        self._healed = False
        replicas = range(plan.settings.replicas)
        self._disks = [SimulatedDisk(self._context, replica, self._written_by(replica)) for replica in replicas]
        self._invariants = Invariants(
            plan.settings.replicas,
            self._relation,
            self._disks,
            forgets_early=plan.settings.forgets_early,
            in_order=plan.settings.pipelined > 0,
            purge_max=plan.settings.drop_instances_max,
        )
        self._network = SimulatedNetwork(
            self._context, self._deliver, self._report_lost, self._receive_handshake, self._stamp_of
        )
        self._adversary = Adversary(self._context, self._network, self._disturbed)
        parts = ReplicaFactory(
            self._context, self._invariants, self._adversary, self._core, self._workload.machine, self._took_part
        )
        self.hosts = [Host(replica, parts, self._disks[replica]) for replica in replicas]
        self._memory_checker = MemoryChecker(self._context, self.hosts)
        self._faults = Faults(self._context, self.hosts, self._disks, self._network, self._adversary)
        self.clients = SimulatedClients(self._context, self._workload, self.hosts)
        self._next_scan = plan.settings.scan_events

    def _written_by(self, replica: int) -> Callable[[Sequence[Record]], None]:
        return lambda records: self._invariants.written(replica, records)

    def _core(self, replica: int) -> Replica:
        return self._make_replica(self._plan.settings.config(replica), self._relation)

    def _deliver(self, to: ReplicaId, sender: ReplicaId, message: Message, stamp: StartStamp) -> None:
        self.hosts[to].deliver(sender, message, stamp)

    def _receive_handshake(self, to: ReplicaId, sender: ReplicaId, greeting: SimulatedHandshake) -> None:
        self.hosts[to].receive_handshake(sender, greeting)

    def _stamp_of(self, sender: ReplicaId) -> StartStamp:
        process = self.hosts[sender].process
        return process.starts.stamp if process is not None and process.starts is not None else None

    def _took_part(self, starts: ProcessStarts) -> None:
        """Check that enough peers answered. Raises Undetectable if none of them has a record of what the disk lacks."""
        answered = sum(starts.has_answered(host.id) for host in self.hosts if host.id != starts.replica)
        if answered + 1 < quorums(len(self.hosts)).slow:
            raise Violation("start", f"r{starts.replica} takes part, but only {answered} peers have answered")
        if self._disks[starts.replica].newest is None:
            return
        for host in self.hosts:
            peer = None if host.process is None else host.process.starts
            if peer is None or peer is starts or not starts.has_answered(host.id):
                continue
            if starts.lacks(peer.remembered(starts.replica)):
                return  # a violation, which the invariants report when it has an effect
        raise Undetectable

    def _report_lost(self) -> None:
        self._memory_checker.disturbed()

    def run(self) -> WorldRun:
        """Run the plan to its end, or to the first violation."""
        finding = None
        try:
            self._begin()
            self._run_faults()
            self._heal()
            self._settle()
            self._wait_for_compaction()
            self._final_checks()
        except Violation as violation:
            finding = self._finding(violation)
        except Undetectable:
            self._context.counts.put_backs_undetectable += 1
        except Exception as error:
            where = traceback.format_exception(error)[-2].strip().splitlines()[0]
            finding = self._finding(Violation(f"stopped by {type(error).__name__}", f"{error} ({where})"))
        return WorldRun(self._plan, finding, self._total())

    def _finding(self, violation: Violation) -> Finding:
        self._context.log("VIOLATION", str(violation))
        return Finding(
            violation.invariant, violation.what, violation.instances, self._schedule.steps, self._schedule.now
        )

    def _begin(self) -> None:
        period_us = self._plan.settings.tick_period_us
        walls = self._context.walls
        for host in self.hosts:
            host.start()
            for other in self.hosts:
                host.observe_clock(ReplicaId(other.id), walls.show(other.id))  # as in a group that runs already
            self._schedule.after(host.id * period_us // len(self.hosts), self._tick, host)
        if self._plan.settings.starve_us:
            for host in self.hosts:
                first_us = host.id * self._plan.settings.starve_every_us // len(self.hosts)
                self._schedule.after(first_us, self._starve, host)
        for fault in self._plan.faults:
            self._schedule.after(fault.at_us, self._strike, fault)
        for operation in self._plan.operations:
            self._schedule.after(operation.at_us, self._operate, operation)

    def _starve(self, host: Host) -> None:
        settings, after = self._plan.settings, self._schedule.after
        host.pause(deaf=False)
        after(settings.starve_us, host.resume)
        after(max(settings.starve_every_us, settings.starve_us + 1), self._starve, host)

    def _disturbed(self, lasting_us: int) -> None:
        self._memory_checker.disturbed(lasting_us)

    def _tick(self, host: Host) -> None:
        host.tick()
        if host.process is not None:
            self._invariants.dropped(host.id, host.process.core.dropped)
        if not self._plan.settings.starts_checked:  # a replica that does not take part yet compacts nothing
            self._memory_checker.ticked(host)
        self._schedule.after(self._plan.settings.tick_period_us, self._tick, host)

    def _operate(self, operation: p.Operation) -> None:
        if not self._healed:
            self.clients.operate(operation)

    # faults

    def _run_faults(self) -> None:
        settings, schedule = self._plan.settings, self._schedule
        while schedule.next_at() < settings.horizon_us and schedule.steps < settings.steps_max:
            schedule.step()
            if schedule.steps >= self._next_scan:
                self._scan()

    def _strike(self, fault: p.Fault) -> None:
        if not self._healed:
            self._context.log("FAULT", str(fault))
            self._memory_checker.fault_injected(fault)
            self._faults.strike(fault)

    # the heal

    def _heal(self) -> None:
        """Start all replicas but the dead, and connect them; each client waits, and one more sends to each replica."""
        self._healed = self._context.healed = True
        self._context.log("HEAL", "all replicas up, all links restored")
        self._network.heal()
        self._adversary.disarm()
        self.clients.retire()
        for host in self.hosts:
            host.cancel_crash()
            host.start()
            host.resume_all()
            # The bound on the time until everything is settled is for these rates. A fault that was to end later does
            # not end any more, and a clock at a tenth of its rate makes every wait ten times as long.
            host.clock_rate = self._plan.settings.clock_rates[host.id]
        self._healed_at_us = self._schedule.now
        if self._plan.operations:
            command = self._plan.operations[-1].command
            for host in self._alive:
                self.clients.operate(p.Operation(self._schedule.now, -1 - host.id, host.id, command))

    def _settle(self) -> None:
        """Run until everything is executed everywhere and no client waits. Raises Violation after the time limit."""
        settings, schedule = self._plan.settings, self._schedule
        heal_us_max = settings.heal_us_max(self._open_instances(), self._waiting_requests())
        deadline_us = schedule.now + heal_us_max
        next_look_us = schedule.now
        while True:
            schedule.step()
            if schedule.steps >= self._next_scan:
                self._scan()
            if schedule.now >= next_look_us:
                next_look_us = schedule.now + settings.tick_period_us
                if self._settled():
                    break
                if schedule.now > deadline_us:
                    raise self._unsettled(heal_us_max)
        taken_us = schedule.now - self._healed_at_us
        self._context.counts.heal_ms_max = taken_us // 1000
        self._context.counts.heal_share_max = taken_us / heal_us_max

    def _settled(self) -> bool:
        known: Deps | None = None
        for host in self._alive:
            process = host.process
            if process is None or not process.idle or process.core.frontier != process.core.known:
                return False
            if known is not None and process.core.known != known:
                return False
            known = process.core.known
        return not self.clients.waiting()

    def _wait_for_compaction(self) -> None:
        """Run until no instance is in memory. Raises Violation after the time limit.

        Skipped if a replica never starts again: the others keep the instances that it lacks.
        """
        if self._plan.settings.is_starved or len(self._alive) < len(self.hosts):
            return
        settings, schedule = self._plan.settings, self._schedule
        processes, known = self._processes_and_known()
        clock_rate = min(host.clock_rate for host in self.hosts)
        drop_us_max = settings.drop_us_max(max(known), clock_rate, max(disk.sync_us for disk in self._disks))
        deadline_us = schedule.now + drop_us_max
        while any(process.core.instances for process in processes):
            schedule.step()
            if schedule.now > deadline_us:
                kept = ", ".join(f"{process.name} keeps {len(process.core.instances)}" for process in processes)
                what = f"{drop_us_max // 1000} ms after everything was executed everywhere, {kept} instances"
                raise Violation("bounded memory", what)

    @property
    def _alive(self) -> list[Host]:
        return [host for host in self.hosts if not host.dead]

    def _processes_and_known(self) -> tuple[list[ReplicaProcess], Deps]:
        """The running processes, and the highest index of each leader that any of them knows."""
        processes = [host.process for host in self.hosts if host.process is not None]
        known = processes[0].core.known
        for process in processes:
            known = merge(known, process.core.known)
        return processes, known

    def _open_instances(self) -> int:
        """An upper bound of the number of instances that the replica that is farthest behind has not executed."""
        processes, known = self._processes_and_known()
        return sum(known) - min(sum(process.core.frontier) for process in processes)

    def _waiting_requests(self) -> int:
        """The largest number of requests that wait at one replica to be proposed."""
        return max(host.process.batcher.queued for host in self.hosts if host.process is not None)

    def _unsettled(self, heal_us_max: int) -> Violation:
        """The violation for a group that has not finished in time, with everything that is still open."""
        processes, known = self._processes_and_known()
        behind = []
        stuck: dict[InstanceId, None] = {}
        for process in processes:
            frontier = process.core.frontier
            for leader, (done, last) in enumerate(zip(frontier, known, strict=True)):
                if done < last:
                    id = InstanceId(ReplicaId(leader), done + 1)
                    stuck[id] = None
                    behind.append(f"{process.name} has not executed {id}: {process.core.instances.get(id)!r}")
        waiting = [client.name for client in self.clients.waiting()]
        what = f"{heal_us_max // 1000} ms after the heal; clients waiting: {waiting}; " + "; ".join(behind[:6])
        return Violation("liveness", what, tuple(stuck)[:6])

    # the final checks

    def _final_checks(self) -> None:
        self._scan()
        processes = [host.process for host in self.hosts if host.process is not None]
        digest = processes[0].machine.digest()
        for process in processes:
            self._invariants.settled(process.replica, process.watched)
            if process.machine.digest() != digest:
                raise Violation("digest", f"{processes[0].name} and {process.name} end in different states")
            if process.sessions.digest() != processes[0].sessions.digest():
                raise Violation("digest", f"{processes[0].name} and {process.name} have different sessions")
        self._check_history()

    def _check_history(self) -> None:
        model = self._workload.model()
        if model is None:
            return
        self._record_outcomes()
        self._record_verdict(check(self.clients.history, model))

    def _record_verdict(self, verdict: LinearizabilityResult) -> None:
        match verdict:
            case NotLinearizable():
                raise Violation("linearizability", str(verdict))
            case Undecided():
                self._context.counts.linearizability_undecided += 1
            case Linearizable():
                self._context.counts.configurations += verdict.configurations
            case unreachable:
                assert_never(unreachable)

    def _record_outcomes(self) -> None:
        """Add the outcomes that clients which gave up cannot know: this makes the check exact, and shorter."""
        answers, end = self._invariants.answers.first, end_time(self._schedule.steps + 1)
        ranks = {id: rank for rank, id in enumerate(answers)}
        for request in self.clients.requests:
            call = request.call
            if call is None:
                continue
            call.rank = ranks.get(request.request_id, end)
            if call.outcome is Outcome.DONE:
                first = self._workload.seen(answers[request.request_id])
                if call.result != first:
                    raise Violation("first result", f"{call} received another result than its first, {first!r}")
            if call.outcome is Outcome.UNKNOWN:
                call.ended = end
                if request.request_id in answers:
                    call.outcome, call.result = Outcome.DONE, self._workload.seen(answers[request.request_id])
                else:
                    call.outcome = Outcome.FAILED

    def _scan(self) -> None:
        self._next_scan = self._schedule.steps + self._plan.settings.scan_events
        self._context.counts.scans += 1
        for host in self.hosts:
            if host.process is not None:
                core = host.process.core
                self._invariants.scan(host.id, core.instances, core.dropped)

    def _total(self) -> Counts:
        counts = self._context.counts
        for host in self.hosts:
            if host.process is not None:
                counts.add_replica(host.process.core.counters)
        counts.steps = self._schedule.steps
        counts.virtual_ms = self._schedule.now // 1000
        counts.decided = len(self._invariants.decided)
        return counts


def run_plan(
    plan: p.Plan,
    workload: Workload | None = None,
    *,
    relation: Relation | None = None,
    make_replica: MakeReplica = Replica,
    trace: Trace | None = None,
) -> WorldRun:
    """Run one plan."""
    world = World(plan, workload, relation=relation, make_replica=make_replica, trace=trace)
    return world.run()


class TraceDigest:
    """SHA-256 over all lines of a trace: two runs are the same exactly if their digests are equal."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.lines = 0

    def __call__(self, line: str) -> None:
        """Add one line."""
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.lines += 1

    def hex(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()
