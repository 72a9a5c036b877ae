"""The members of the group as configured at one replica: names in their order, and addresses.

Decides which differences between two lists are refused: the number of members, their names, and their order, because
promises and votes are counted by position. Addresses are not compared: one replica may reach another by a name, through
a forwarded port or over another network. Addresses are sent with the list, so that a refusal can show both lists.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from pydsm.core.types.ids import ReplicaId
from pydsm.logs import printable

_LABEL = b"PyDSM members 1\0"
_NAME_CHARACTERS_MAX = 64
_ADDRESS_CHARACTERS_MAX = 264
_SENT_BYTES_MAX = 8192
_SHOWN_CHARACTERS_MAX = 600


class Member(NamedTuple):
    """One member of the group. The address is only shown to people; empty if none was given."""

    name: str
    address: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.address}" if self.address else self.name


def unnamed(replicas: int) -> tuple[Member, ...]:
    """Members named by their numbers, for a group without configured names."""
    return tuple(Member(f"replica {number}") for number in range(replicas))


def digest(members: Sequence[Member]) -> bytes:
    """The digest of what must be equal at every replica: the number of members, and their names in order."""
    names = [member.name.encode("utf-8", "surrogatepass") for member in members]
    parts = [len(names).to_bytes(4, "big"), *(len(name).to_bytes(4, "big") + name for name in names)]
    return sha256(_LABEL + b"".join(parts)).digest()


def to_send(members: Sequence[Member]) -> tuple[Member, ...]:
    """As many of the first members as fit into a Hello, each cut to a bounded size."""
    sent: list[Member] = []
    characters = 0
    for member in members:
        cut = Member(printable(member.name, _NAME_CHARACTERS_MAX), printable(member.address, _ADDRESS_CHARACTERS_MAX))
        characters += len(cut.name) + len(cut.address)
        if 4 * characters > _SENT_BYTES_MAX:  # a character takes up to four
            break
        sent.append(cut)
    return tuple(sent)


def shown(members: Sequence[Member], count: int) -> str:
    """A list of `count` members, of which `members` are the first, on one line of bounded length."""
    line = ""
    for number, member in enumerate(members):
        one = printable(str(member), _NAME_CHARACTERS_MAX + _ADDRESS_CHARACTERS_MAX)
        if len(line) + len(one) > _SHOWN_CHARACTERS_MAX:
            return f"{line}, and {count - number} more"
        line = f"{line}, {one}" if line else one
    return line if count <= len(members) else f"{line}, and {count - len(members)} more"


def name_of(members: Sequence[Member], replica: ReplicaId) -> str:
    """The name of this replica, safe to print."""
    return printable(members[replica].name, _NAME_CHARACTERS_MAX) if replica < len(members) else f"replica {replica}"
