"""Phases of an instance at the replica that leads a ballot for it: one at a time, each with its own tally of answers.

Guarantees that answers are counted per replica, never per message (docs/reference/protocol.md#3-commit). That an answer
has the ballot of the phase is checked by `proposer` and `recoverer`, which also decide when a phase ends.
"""

from dataclasses import dataclass, field

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick
from pydsm.core.types.messages import Batch, PrepareOk, Value


@dataclass(slots=True)
class PreAccepting:
    """Round 0 at the instance's leader: it collects dependency vectors."""

    ballot: Ballot
    batch: Batch
    initial: Deps
    asked: tuple[ReplicaId, ...]
    started: Tick
    deadline: Tick
    repeats: int = 0
    answers: dict[ReplicaId, Deps] = field(default_factory=dict)
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def record(self, sender: ReplicaId, deps: Deps) -> bool:
        """Count an answer; returns False if this replica was counted before."""
        if sender in self.answers:
            return False
        self.answers[sender] = deps
        return True

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer has answered or refused, so that the request is not repeated to it."""
        return peer in self.answers or peer in self.refused


@dataclass(slots=True)
class Accepting:
    """Votes for a value are collected: on the slow path in round 0, or as the last step of a recovery above round 0."""

    ballot: Ballot
    value: Value
    deps: Deps
    asked: tuple[ReplicaId, ...]
    deadline: Tick
    repeats: int = 0
    votes: dict[ReplicaId, None] = field(default_factory=dict)
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def record(self, sender: ReplicaId) -> bool:
        """Count a vote; returns False if this replica was counted before."""
        if sender in self.votes:
            return False
        self.votes[sender] = None
        return True

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer has answered or refused, so that the request is not repeated to it."""
        return peer in self.votes or peer in self.refused


@dataclass(slots=True)
class Preparing:
    """First step of a recovery: peers are asked for their state of the instance."""

    ballot: Ballot
    deadline: Tick
    repeats: int = 0
    answers: dict[ReplicaId, PrepareOk] = field(default_factory=dict)
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer has answered or refused, so that the request is not repeated to it."""
        return peer in self.answers or peer in self.refused


@dataclass(slots=True)
class Validating:
    """Second step of a recovery: the quorum is asked for invalidators of a possible fast commit.

    `prepared` has the PrepareOk of each member of the quorum, `late` those of other replicas. `unchanged` counts the
    members that pre-accepted the initial vector; `invalidators` maps each reported one to whether it is committed.
    """

    ballot: Ballot
    batch: Batch
    deps: Deps
    unchanged: int
    prepared: dict[ReplicaId, PrepareOk]
    deadline: Tick
    gives_up: Tick
    """From this tick on, members that have not answered are treated as failed."""
    repeats: int = 0
    late: dict[ReplicaId, PrepareOk] = field(default_factory=dict)
    invalidators: dict[InstanceId, bool] = field(default_factory=dict)
    answered: dict[ReplicaId, None] = field(default_factory=dict)
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer has answered or refused, so that the request is not repeated to it."""
        return peer in self.answered or peer in self.refused


@dataclass(slots=True)
class AwaitingInvalidators:
    """Third step of a recovery, if there are undecided invalidators: their decisions determine the value."""

    ballot: Ballot
    batch: Batch
    deps: Deps
    unchanged: int
    invalidators: tuple[InstanceId, ...]
    prepared: dict[ReplicaId, PrepareOk]
    late: dict[ReplicaId, PrepareOk]
    deadline: Tick
    gives_up: Tick
    """From this tick on, the wait is treated as endless."""
    repeats: int = 0
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer has answered or refused, so that the request is not repeated to it."""
        return peer in self.prepared or peer in self.late or peer in self.refused


Phase = PreAccepting | Accepting | Preparing | Validating | AwaitingInvalidators
