"""The state of one instance at one replica. Every change of status goes through `Instance.advance`."""

from pydsm.core.types.ballots import Ballot, initial_ballot
from pydsm.core.types.effects import InstanceRecord
from pydsm.core.types.errors import InvariantViolation
from pydsm.core.types.ids import Deps, InstanceId
from pydsm.core.types.messages import Batch, Nop, Value
from pydsm.core.types.status import LEGAL_CHANGES, Status


class Instance:
    """The state of docs/reference/protocol.md, section 2. `value` is a batch, `NOP`, or None while unknown.

    `initial_batch` and `initial_deps` are the leader's first proposal, from its PreAccept or from a Validate.
    """

    __slots__ = ("deps", "id", "initial_batch", "initial_deps", "promised", "status", "value", "voted")

    def __init__(self, id: InstanceId, no_deps: Deps) -> None:
        self.id = id
        self.status = Status.UNKNOWN
        self.promised = initial_ballot(id)
        self.voted: Ballot | None = None
        self.value: Value | None = None
        self.deps = no_deps
        self.initial_batch: Batch | None = None
        self.initial_deps = no_deps

    @property
    def decided(self) -> bool:
        """Whether the value is final: the instance is committed or executed."""
        return self.status >= Status.COMMITTED

    @property
    def known_batch(self) -> Batch | None:
        """The only batch that this instance can be decided as, or None while unknown; the other outcome is nop."""
        return self.value if isinstance(self.value, Batch) else self.initial_batch

    def advance(self, status: Status) -> None:
        """Change the status. Raises InvariantViolation for a change that `LEGAL_CHANGES` does not allow."""
        if status not in LEGAL_CHANGES[self.status]:
            raise InvariantViolation(f"instance {self.id} cannot go from {self.status.name} to {status.name}: {self!r}")
        self.status = status

    def promise(self, ballot: Ballot) -> None:
        """Promise a ballot. Raises InvariantViolation if a higher one was promised before."""
        if ballot < self.promised:
            raise InvariantViolation(f"instance {self.id} cannot promise {ballot} after {self.promised}")
        self.promised = ballot

    def record(self) -> InstanceRecord:
        """The durable form. Execution is not recorded: a restart executes committed instances again, in order."""
        return InstanceRecord(
            self.id,
            min(self.status, Status.COMMITTED),
            self.promised,
            self.voted,
            self.value,
            self.deps,
            self.initial_batch,
            self.initial_deps,
        )

    @classmethod
    def from_record(cls, record: InstanceRecord) -> "Instance":
        """The instance in the state that the record has."""
        instance = cls(record.id, record.initial_deps)
        instance.status = record.status
        instance.promised = record.promised
        instance.voted = record.voted
        instance.value = record.value
        instance.deps = record.deps
        instance.initial_batch = record.initial_batch
        return instance

    def __repr__(self) -> str:
        value = "nop" if isinstance(self.value, Nop) else "batch" if self.value is not None else "unknown"
        return (
            f"<{self.id} {self.status.name} promised={self.promised} voted={self.voted} "
            f"deps={self.deps} initial={self.initial_deps} value={value}>"
        )
