"""Bugs that break "each request once, and its first result". `finds` lists the run that finds each."""

from collections.abc import Sequence

import pytest

from pydsm.core import replica as replicas
from pydsm.core.log.conflicts import Relation
from pydsm.core.sessions import session_window, sessions
from pydsm.core.sessions.result_ranges import Codec
from pydsm.core.sessions.session_window import SessionWindow, StoredResult
from pydsm.core.sessions.sessions import Sessions
from pydsm.core.types.ids import RequestId
from pydsm.core.types.messages import Batch
from pydsm.runtime.results import decode_results, encode_results
from pydsm.sim.cluster import host, process
from tests.sim.injected.registry import bug


@bug("7: the executed window of each session is part of the state, and comes back with it")
def window_forgotten_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    original = host.Host.start

    def start(self: host.Host) -> None:
        before = self.process
        original(self)
        if self.process is not None and self.process is not before:
            without = Sessions(None, encode_results, decode_results)
            without.time = self.process.sessions.time  # agreed time is not what this is about
            self.process.sessions = without

    patch.setattr(host.Host, "start", start)


@bug("7: a retry conflicts with whatever else has requests of its session")
def retry_does_not_conflict_with_the_first_attempt(patch: pytest.MonkeyPatch) -> None:
    def without_sessions(relation: Relation) -> Relation:
        return getattr(relation, "machine", relation)

    patch.setattr(replicas, "with_sessions", without_sessions)


@bug("7: an instance whose requests may be in another one is marked as a retry")
def retry_taken_for_a_first_attempt(patch: pytest.MonkeyPatch) -> None:
    def is_first(self: process.ReplicaProcess, id: RequestId) -> bool:
        return True

    patch.setattr(process.ReplicaProcess, "is_first", is_first)


@bug("7: a request that was agreed twice is executed once")
def second_execution_not_skipped(patch: pytest.MonkeyPatch) -> None:
    original = session_window.SessionWindow.claim

    def claim(self: session_window.SessionWindow, start: int, end: int) -> list[tuple[int, int]]:
        original(self, start, end)
        return [(start, end)]

    patch.setattr(session_window.SessionWindow, "claim", claim)


@bug("7: a repeated request is answered with its first result")
def answer_of_a_skipped_request_is_the_latest_result(patch: pytest.MonkeyPatch) -> None:
    def result(self: session_window.SessionWindow, sequence: int, codec: Codec) -> StoredResult:
        return self.stretches[-1].result(self.stretches[-1].end - 1, codec) if self.firsts else None

    patch.setattr(session_window.SessionWindow, "result", result)


@bug("7: results are kept until they are acknowledged")
def window_pruned_before_the_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    original = session_window.SessionWindow.keep

    def keep(self: SessionWindow, first: int, results: Sequence[StoredResult], codec: Codec, bytes_max: int) -> None:
        original(self, first, results, codec, bytes_max)
        self.drop(first, codec)

    def acknowledge(self: SessionWindow, acknowledged: int, codec: Codec) -> None:
        self.drop(acknowledged + 1, codec)

    patch.setattr(session_window.SessionWindow, "keep", keep)
    patch.setattr(session_window.SessionWindow, "acknowledge", acknowledge)


@bug("7: an acknowledgement drops results and decides nothing, since first attempts commute")
def acknowledged_requests_taken_for_executed(patch: pytest.MonkeyPatch) -> None:
    original = session_window.SessionWindow.acknowledge

    def acknowledge(self: session_window.SessionWindow, acknowledged: int, codec: Codec) -> None:
        original(self, acknowledged, codec)
        self.claim(0, acknowledged)

    patch.setattr(session_window.SessionWindow, "acknowledge", acknowledge)


@bug("7: sessions expire by agreed time, never by what one replica has seen")
def sessions_forgotten_at_every_batch(patch: pytest.MonkeyPatch) -> None:
    original = Sessions.execute

    def execute(self: Sessions, batch: Batch, apply: sessions.Apply) -> list[StoredResult]:
        self.expire([batch.timestamp_ms])
        return original(self, batch, apply)

    patch.setattr(Sessions, "execute", execute)


@bug("7: results are dropped by what was executed, never by what one replica has kept at that moment")
def results_of_all_sessions_limited_at_every_batch(patch: pytest.MonkeyPatch) -> None:
    original = Sessions.execute

    def execute(self: Sessions, batch: Batch, apply: sessions.Apply) -> list[StoredResult]:
        results = original(self, batch, apply)
        if self.results_bytes > self.results_bytes_max:
            self._drop_largest(self.results_bytes - self.results_bytes_max)
        return results

    patch.setattr(Sessions, "execute", execute)
