"""Whose data a store holds. A store opened under another identity refuses, so that no replica acts on another's votes."""

from dataclasses import dataclass

from pydsm.core.ids import ReplicaId


@dataclass(frozen=True, slots=True)
class Identity:
    """One replica of one group.

    `group` names the group, `name` the replica in it, `replica` its position among `replicas`.
    """

    group: str
    name: str
    replica: ReplicaId
    replicas: int
