"""What a replica in a program is configured with, checked before anything is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydsm.core.types.config import Config
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address, parse_address

_NAME_CHARACTERS_MAX = 64


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """Of one replica."""

    identity: Identity
    names: tuple[str, ...]
    """The names of all members, in order."""
    addresses: tuple[Address, ...]
    """Where other replicas reach them, in the same order."""
    listen: Address
    clients: Address | None
    data_dir: Path | None
    config: Config


def replica_settings(
    *,
    group: str,
    name: str,
    listen: str,
    peers: Mapping[str, str],
    clients: str | None,
    data_dir: str | Path | None,
    checkpoint_instances: int | None,
) -> ReplicaSettings:
    """The settings for the arguments of `Replica`. Raises UsageError for those that cannot work.

    Members are numbered in the order of their names, so it does not matter in which order `peers` lists them.
    """
    members = {name: listen, **peers}
    for one in members:
        if not one or not one.isprintable() or len(one) > _NAME_CHARACTERS_MAX:
            raise UsageError(
                f"{one[:_NAME_CHARACTERS_MAX]!r} is not a name of a replica: use 1 to {_NAME_CHARACTERS_MAX} printable "
                "characters"
            )
    names = tuple(sorted(members))
    addresses = tuple(parse_address(members[one]) for one in names)
    if len(set(addresses)) != len(addresses):
        raise UsageError(f"two replicas have one address: {', '.join(f'{one}={members[one]}' for one in names)}")
    replica = ReplicaId(names.index(name))
    at = parse_address(listen)
    for_clients = None if clients is None else parse_address(clients)
    if for_clients == at:
        raise UsageError(f"replicas and clients cannot both connect to {at}: give clients= another port")
    config = Config(replica, len(names))
    if checkpoint_instances is not None:
        config = Config(replica, len(names), checkpoint_instances_max=checkpoint_instances)
    return ReplicaSettings(
        identity=Identity(group, name, replica, len(names)),
        names=names,
        addresses=addresses,
        listen=at,
        clients=for_clients,
        data_dir=None if data_dir is None else Path(data_dir),
        config=config,
    )
