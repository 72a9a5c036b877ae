"""What a replica has done, for people: plain counts since it was made."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class ProtocolCounters:
    """Each counts instances at this replica unless it says otherwise."""

    proposed: int = 0
    fast: int = 0
    """Own instances committed after one round trip."""
    slow: int = 0
    """Own instances committed after two."""
    recovered: int = 0
    """Committed by a recovery led here, as batch or nop."""
    nops: int = 0
    """Learnt to be nop."""
    aborted: int = 0
    """Own requests that were decided nop."""
    prepared: int = 0
    """Recoveries begun here."""
    validated: int = 0
    """Recoveries here that had to validate."""
    waited: int = 0
    """Recoveries here that had to wait for invalidators."""
    inquired: int = 0
    """Instances that peers were asked about."""
    executed: int = 0
    """Batches handed to the state machine."""
    branches: dict[str, int] = field(default_factory=dict)
    """Recovery decisions by the text of their `recovery.Rule`."""

    def count_branch(self, name: str) -> None:
        """One more decision by this rule."""
        self.branches[name] = self.branches.get(name, 0) + 1
