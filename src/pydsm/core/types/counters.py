"""Counters of one replica since its process started, for metrics and logs."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class ProtocolCounters:
    """Each counts instances at this replica unless stated otherwise."""

    proposed: int = 0
    fast: int = 0
    """Own instances committed after one round trip."""
    slow: int = 0
    """Own instances committed after two round trips."""
    recovered: int = 0
    """Instances committed by a recovery that this replica led, as batch or nop."""
    nops: int = 0
    """Instances decided nop."""
    aborted: int = 0
    """Own proposed instances that were decided nop."""
    prepared: int = 0
    """Recoveries started here."""
    validated: int = 0
    """Recoveries here that had to validate."""
    waited: int = 0
    """Recoveries here that had to wait for invalidators."""
    inquired: int = 0
    """Instances that peers were asked about."""
    executed: int = 0
    """Batches executed, checkpoints included."""
    branches: dict[str, int] = field(default_factory=dict)
    """Recovery decisions, by the text of their `recovery_rules.Rule`."""

    def count_branch(self, name: str) -> None:
        """Count a decision by this rule."""
        self.branches[name] = self.branches.get(name, 0) + 1
