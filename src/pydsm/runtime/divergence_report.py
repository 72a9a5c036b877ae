"""Describes the divergence of a replica's state for operators: where it differs, and what to do.

The snapshot with the diverged state is not moved or removed.
"""

from collections.abc import Callable, Sequence
from itertools import islice

from pydsm.core.protocol.divergence import chunks_in_part
from pydsm.core.types.errors import Diverged
from pydsm.machines.base import SupportsKeyListing
from pydsm.storage.snapshots import SnapshotFile, SnapshotFiles

_KEYS_NAMED = 3


def describe_divergence(diverged: Diverged, files: Sequence[SnapshotFile], machine: object) -> str:
    """The text of the report; `files` are the snapshots of the replica."""
    file = next((one for one in files if one.checkpoint.number == diverged.number), None)
    where = "its snapshot does not exist any more" if file is None else _where(file, diverged.part, machine)
    return (
        f"{diverged}; {where}. Find the cause: a state machine that is not deterministic, or faulty hardware. "
        f"Then remove this file and, from snapshots/, those of checkpoint {diverged.number} and later, and start the "
        "replica again: it restores the snapshot before and executes the later instances again. If no snapshot is "
        "left, keep the directory as evidence: this member is lost"
    )


def _where(file: SnapshotFile, part: int, machine: object) -> str:
    together = chunks_in_part(len(file.digests))
    first = part * together
    keys: list[bytes] = []
    if isinstance(machine, SupportsKeyListing):
        for chunk in islice(file.chunks(), first, first + together):
            try:
                keys += machine.keys_in(chunk)
            except ValueError:
                return f"chunks {first} to {first + together - 1} of {file.path} differ, which are about sessions"
    named = ", ".join(key.decode(errors="backslashreplace") for key in keys[:_KEYS_NAMED])
    about = f", with {len(keys)} keys from {named} on" if keys else ""
    return f"chunks {first} to {first + together - 1} of {len(file.digests)} in {file.path} differ{about}"


def write_divergence(
    diverged: Diverged, files: SnapshotFiles | None, machine: object, with_names: Callable[[str], str]
) -> str:
    """Write the report into the data directory, so that no later start uses it. Gives the text, also if that fails."""
    if files is None:
        return str(diverged)
    try:
        text = describe_divergence(diverged, files.load(), machine)
        files.mark_diverged(with_names(text))
    except Exception as error:  # a machine's keys_in may raise anything, and the replica must stop in any case
        return f"{diverged}; the report could not be written: {error}"
    return text
