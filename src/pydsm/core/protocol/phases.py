"""What a replica that drives an instance is in the middle of: one phase at a time, each with exactly its own tally.

Answers are counted per replica, never per message, and only in the ballot of the phase (PROTOCOL 3 and 9).
"""

from dataclasses import dataclass, field

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.ids import Deps, InstanceId, ReplicaId, Tick
from pydsm.core.types.messages import Batch, PrepareOk, Value


@dataclass(slots=True)
class PreAccepting:
    """Round 0 at the instance's leader: collecting dependency vectors."""

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
        """Count an answer; False for a second one of the same replica."""
        if sender in self.answers:
            return False
        self.answers[sender] = deps
        return True

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer need not be asked again."""
        return peer in self.answers or peer in self.refused


@dataclass(slots=True)
class Accepting:
    """Collecting votes for a value: the slow path in round 0, the end of a recovery above it."""

    ballot: Ballot
    value: Value
    deps: Deps
    asked: tuple[ReplicaId, ...]
    deadline: Tick
    repeats: int = 0
    votes: dict[ReplicaId, None] = field(default_factory=dict)
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def record(self, sender: ReplicaId) -> bool:
        """Count a vote; False for a second one of the same replica."""
        if sender in self.votes:
            return False
        self.votes[sender] = None
        return True

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer need not be asked again."""
        return peer in self.votes or peer in self.refused


@dataclass(slots=True)
class Preparing:
    """Recovery, first step: asking what others know."""

    ballot: Ballot
    deadline: Tick
    repeats: int = 0
    answers: dict[ReplicaId, PrepareOk] = field(default_factory=dict)
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer need not be asked again."""
        return peer in self.answers or peer in self.refused


@dataclass(slots=True)
class Validating:
    """Recovery, second step: asking the quorum what speaks against a possible fast commit.

    `prepared` are the answers of the quorum; later ones are kept in `late`.
    """

    ballot: Ballot
    batch: Batch
    deps: Deps
    unchanged: int
    prepared: dict[ReplicaId, PrepareOk]
    deadline: Tick
    gives_up: Tick
    """When members that have not answered are taken for dead."""
    repeats: int = 0
    late: dict[ReplicaId, PrepareOk] = field(default_factory=dict)
    invalidators: dict[InstanceId, bool] = field(default_factory=dict)
    answered: dict[ReplicaId, None] = field(default_factory=dict)
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer need not be asked again."""
        return peer in self.answered or peer in self.refused


@dataclass(slots=True)
class AwaitingInvalidators:
    """Recovery, third step where it is needed: the fate of the invalidators decides."""

    ballot: Ballot
    batch: Batch
    deps: Deps
    unchanged: int
    invalidators: tuple[InstanceId, ...]
    prepared: dict[ReplicaId, PrepareOk]
    late: dict[ReplicaId, PrepareOk]
    deadline: Tick
    repeats: int = 0
    refused: dict[ReplicaId, Ballot] = field(default_factory=dict)

    def has_answer_of(self, peer: ReplicaId) -> bool:
        """Whether this peer need not be asked again."""
        return peer in self.prepared or peer in self.late or peer in self.refused


Phase = PreAccepting | Accepting | Preparing | Validating | AwaitingInvalidators
