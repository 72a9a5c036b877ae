"""Bugs in ballots, answers, waits and dropping. `finds` lists the run that finds each."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from pydsm.core import replica as replicas
from pydsm.core.log import log, session_conflicts
from pydsm.core.protocol import divergence, execution, outbox, recoverer, state, suspicion
from pydsm.core.protocol.distances import Distances
from pydsm.core.protocol.phases import Validating
from pydsm.core.protocol.repeats import Repeats
from pydsm.core.types import checkpoint, messages
from pydsm.core.types.effects import PurgeRecord
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, SessionId, Tick, covers, merge
from pydsm.core.types.messages import Batch, Value
from tests.sim.injected.registry import bug


@bug("4, Prepare: the own promise is durable before the Prepare leaves, so that no later start uses its ballot")
def prepare_leaves_before_its_promise_is_durable(patch: pytest.MonkeyPatch) -> None:
    original = outbox.Outbox.send

    def send(self: outbox.Outbox, to: tuple[ReplicaId, ...], message: messages.Message) -> None:
        if isinstance(message, messages.Prepare):
            self.send_early(to, message)
        else:
            original(self, to, message)

    patch.setattr(outbox.Outbox, "send", send)


@bug("4: a recovery begins above every ballot that was promised here")
def recovery_begins_with_the_same_ballot_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recoverer, "next_ballot", lambda above, me: type(above)(max(1, above.round), me))


@bug("6, Sliding window: instances compacted early are in a durable snapshot, not only in one being taken")
def early_drop_beyond_the_last_durable_checkpoint(patch: pytest.MonkeyPatch) -> None:
    original = replicas.Replica._compact

    def forget(self: replicas.Replica) -> None:
        original(self)
        inner = self._state
        if self._snapshots and inner.log.kept_bytes > inner.config.window_bytes_max:
            gone = merge(inner.log.dropped, inner.schedule.position.up_to)
            inner.log.drop(tuple(map(min, gone, inner.log.frontier)), inner.config.drop_instances_max)

    patch.setattr(replicas.Replica, "_compact", forget)


@bug("6: records leave the disk a few at a time")
def unbounded_purge(patch: pytest.MonkeyPatch) -> None:
    original = replicas.Replica._compact

    def forget(self: replicas.Replica) -> None:
        original(self)
        if len(self._snapshots) > 1:
            inner = self._state
            gone = tuple(map(min, self._snapshots[0].position.up_to, inner.log.dropped))
            if merge(self._purged, gone) != self._purged:
                self._purged = gone
                exceptions = tuple(id for id in sorted(inner.log.absent) if not covers(gone, id))
                inner.outbox.persist_lazily(PurgeRecord(gone, exceptions))

    patch.setattr(replicas.Replica, "_compact", forget)


@bug("6, checkpoint: a barrier with commands is no checkpoint")
def checkpoint_with_commands(patch: pytest.MonkeyPatch) -> None:
    def is_checkpoint(value: Value | None) -> bool:
        return isinstance(value, Batch) and value.footprint.barrier

    for module in (checkpoint, state, execution):
        patch.setattr(module, "is_checkpoint", is_checkpoint)


@bug("7: a retry conflicts with what has requests of its session, whoever leads it")
def retry_ordered_against_one_leader_only(patch: pytest.MonkeyPatch) -> None:
    original = session_conflicts._highest

    def highest(found: Deps, latest: list[dict[SessionId, int]], sessions: Collection[SessionId]) -> Deps:
        return (*original(found[:1], latest[:1], sessions), *found[1:])

    patch.setattr(session_conflicts, "_highest", highest)


@bug("6, divergence: only a slow quorum of other digests stops a replica")
def minority_of_digests_stops_a_replica(patch: pytest.MonkeyPatch) -> None:
    def judge(
        self: divergence.Divergence, number: int, of_members: dict[ReplicaId, tuple[bytes, ...]]
    ) -> divergence.DivergenceReport | None:
        mine = of_members.get(self.me)
        others = tuple(one for one in sorted(of_members) if of_members[one] != mine)
        return divergence.DivergenceReport(number, others, 0) if mine is not None and others else None

    patch.setattr(divergence.Divergence, "_compare_states", judge)


@bug("4: a refusal counts in its own ballot only")
def refuse_of_any_ballot_counted(patch: pytest.MonkeyPatch) -> None:
    original = recoverer.Recoverer.on_refuse

    def on_refuse(self: recoverer.Recoverer, sender: ReplicaId, message: messages.Refuse) -> None:
        phase = self._state.leading.get(message.id)
        if phase is not None:
            message = messages.Refuse(message.id, phase.ballot, message.promised)
        original(self, sender, message)

    patch.setattr(recoverer.Recoverer, "on_refuse", on_refuse)


@bug("4, Validate: an answer counts in its own ballot only")
def validate_ok_of_an_old_ballot_counted(patch: pytest.MonkeyPatch) -> None:
    original = recoverer.Recoverer.on_validate_ok

    def on_validate_ok(self: recoverer.Recoverer, sender: ReplicaId, message: messages.ValidateOk) -> None:
        phase = self._state.leading.get(message.id)
        if isinstance(phase, Validating):
            message = messages.ValidateOk(message.id, phase.ballot, message.invalidators)
        original(self, sender, message)

    patch.setattr(recoverer.Recoverer, "on_validate_ok", on_validate_ok)


@bug("4: a member that must answer Validate is waited for as long as this network needs")
def validate_given_up_after_a_fixed_time(patch: pytest.MonkeyPatch) -> None:
    def silence_ticks(self: suspicion.Suspicions, id: InstanceId, members: Iterable[ReplicaId], since: Tick) -> int:
        return 8 * self._config.retry_ticks

    patch.setattr(suspicion.Suspicions, "silence_ticks", silence_ticks)
    waits_do_not_know_the_distance(patch)


@bug("4: a wait that no rule ends is given up, and the instance recovered with another quorum")
def wait_for_invalidators_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(suspicion.Suspicions, "wait_ticks", lambda self, id, since: 1 << 40)


@bug("4: the own wait for an instance counts in the other recoveries of this replica")
def own_waiting_unheard(patch: pytest.MonkeyPatch) -> None:
    original = recoverer.Recoverer._begin_waiting

    def begin(self: recoverer.Recoverer, id: InstanceId, *how: Any) -> None:
        stepped, self._step_waiters = self._step_waiters, lambda id: None  # type: ignore[method-assign]
        original(self, id, *how)
        self._step_waiters = stepped  # type: ignore[method-assign]

    patch.setattr(recoverer.Recoverer, "_begin_waiting", begin)


@bug("6, Sliding window: gossip is followed in steps by a replica that is far behind")
def distant_gossip_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(log.Log, "note_gossiped", log.Log.note_exists)


@bug("4: messages after a pause of the loop count as received then, not at the tick before the pause")
def time_stands_still_between_ticks(patch: pytest.MonkeyPatch) -> None:
    advance, tick = replicas.Replica.advance, replicas.Replica.tick

    def tick_with_time(self: replicas.Replica, now: Tick, clock_ms: int = 0) -> None:
        advance(self, now)
        tick(self, now, clock_ms)

    patch.setattr(replicas.Replica, "advance", lambda self, now: None)
    patch.setattr(replicas.Replica, "tick", tick_with_time)


@bug("4: waits between recoveries grow with the distance of the members")
def waits_do_not_know_the_distance(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Distances, "measured", lambda self, member, ticks: None)
    patch.setattr(suspicion.Suspicions, "answered", lambda self, id, ballot, now: None)


@bug("4: the number of repeated questions that a peer has not answered is limited")
def repetition_fills_the_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Repeats, "_is_below_limit", lambda self, peer: True)
