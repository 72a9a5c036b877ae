"""A temporary local group for measurements: starts it, describes it, stops it and removes its data."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydsm.bench.target import Target
from pydsm.cli.local_group import LocalGroup
from pydsm.cli.serve import Storage
from pydsm.core.types.errors import UsageError

_REPLICAS_MAX = 15


@dataclass(frozen=True, slots=True)
class GroupShape:
    """The properties of the group. Raises UsageError for invalid ones."""

    replicas: int = 3
    storage: Storage = Storage.MEMORY
    thrifty: bool = False
    batch_commands_max: int | None = None
    """None: the default of `pydsm serve`."""

    checkpoint_instances: int | None = None
    """None: the default of `pydsm serve`."""

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= _REPLICAS_MAX:
            raise UsageError(f"--replicas must be between 1 and {_REPLICAS_MAX}, got {self.replicas}")
        if self.batch_commands_max is not None and self.batch_commands_max < 1:
            raise UsageError(f"--batch-commands-max must be at least 1, got {self.batch_commands_max}")

    @property
    def options(self) -> list[str]:
        """The options for `pydsm serve`."""
        options = ["--thrifty"] if self.thrifty else []
        if self.batch_commands_max is not None:
            options += ["--batch-commands-max", str(self.batch_commands_max)]
        if self.checkpoint_instances is not None:
            options += ["--checkpoint-instances", str(self.checkpoint_instances)]
        return options

    def setting(self) -> dict[str, str | int | float | bool]:
        """The setting for the result file."""
        optional = {
            "batch_commands_max": self.batch_commands_max,
            "checkpoint_instances": self.checkpoint_instances,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"replicas": self.replicas, "storage": self.storage.value, "thrifty": self.thrifty, **given}


@asynccontextmanager
async def local_target(shape: GroupShape) -> AsyncIterator[Target]:
    """Replicas on this machine, with data in the directory for temporary files, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pydsm-bench-") as directory:
        async with LocalGroup(shape.replicas, Path(directory), shape.storage, *shape.options) as group:
            pids = [member.process.pid for member in group.members if member.process is not None]
            data = [member.data for member in group.members]
            yield Target(group.clients, group.redis, pids, data, shape.setting())
            group.check_running()
