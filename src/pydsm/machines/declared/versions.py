"""Which version of a class executes: the oldest, until every replica has announced a newer one.

A rolling upgrade restarts the replicas one by one with the new class, which names the class before as `former`. Each
announces its version in a command. The execution of the last announcement migrates the state, so it happens at the
same point of the order at every replica.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.machines.declared.declaration import StateMachine
from pydsm.machines.declared.kinds import encode
from pydsm.machines.declared.signatures import Signature

ANNOUNCEMENT_TAG = " version"
"""No method can have this name."""


class Announcement(msgspec.Struct, frozen=True, array_like=True, tag=ANNOUNCEMENT_TAG, gc=False):
    """One replica has this version of the class."""

    member: int
    members: int
    version: int


class Calls:
    """Decodes the calls of one class, and announcements."""

    def __init__(self, cls: type[StateMachine]) -> None:
        signatures = cls._declaration.signatures.values()
        union: Any = Announcement
        for signature in signatures:
            union = union | signature.struct
        self.decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(union).decode
        self.decode_many: Callable[[bytes], list[Any]] = msgspec.msgpack.Decoder(list[union]).decode
        self.signatures: dict[type, Signature] = {signature.struct: signature for signature in signatures}


class Versions:
    """The versions of one machine, and those that replicas have announced."""

    def __init__(self, newest: type[StateMachine], member: int | None, members: int | None) -> None:
        """`member` and `members`: this replica's number and the size of the group; None to begin with the newest."""
        self._classes: dict[int, type[StateMachine]] = {}
        one: type[StateMachine] | None = newest
        while one is not None:
            self._classes[one.version] = one
            one = one.former
        self._newest, self._member, self._members = newest, member, members
        self.first = newest if member is None else self._classes[min(self._classes)]
        """The class of a state that no command has changed yet."""
        self.by_member: dict[str, int] = {}
        """The announced versions by the number of the replica, as text. A replica that has announced none has the
        first one."""
        self.calls = {cls: Calls(cls) for cls in self._classes.values()}

    def of(self, version: int) -> type[StateMachine]:
        """The class of a version. Raises OperationalError if this process does not have it."""
        cls = self._classes.get(version)
        if cls is None:
            known = ", ".join(map(str, sorted(self._classes)))
            raise OperationalError(
                f"the state has version {version} of {self._newest.__name__}, and this process has {known}: start it "
                "with the class of that version, or name the classes before as `former`"
            )
        return cls

    def signatures_of(self, commands: Sequence[bytes]) -> Iterator[tuple[Signature | None, Any]]:
        """The methods that each command may call, one for each version, with the decoded call.

        None for an announcement, and for a call that only another version has. Raises UsageError for bytes that are no
        call.
        """
        first, *others = self.calls.values()
        decode, signatures = first.decode, first.signatures
        for command in commands:
            try:
                call = decode(command)
            except msgspec.DecodeError:
                tag_of(command)
                yield None, None
            else:
                yield signatures.get(type(call)), call
        for calls in others:
            for command in commands:
                with suppress(msgspec.DecodeError):
                    call = calls.decode(command)
                    yield calls.signatures.get(type(call)), call

    def to_announce(self) -> list[bytes]:
        """The announcement of this replica, until it is executed."""
        if self._member is None or self._members is None:
            return []
        if self.by_member.get(str(self._member), self.first.version) == self._newest.version:
            return []
        return [encode(Announcement(self._member, self._members, self._newest.version))]

    def announced(self, announcement: Announcement, present: type[StateMachine]) -> list[type[StateMachine]]:
        """Note an announcement; returns the classes to migrate to, one after another.

        Raises OperationalError if this process does not have them.
        """
        self.by_member[str(announcement.member)] = announcement.version
        oldest = min(self.by_member.get(str(member), present.version) for member in range(announcement.members))
        return [self.of(version) for version in range(present.version + 1, oldest + 1)]


def tag_of(command: bytes) -> str:
    """The tag of a call that no version knows. Raises UsageError for bytes that are no call."""
    try:
        (tag, *_) = msgspec.msgpack.decode(command, type=list[Any])
    except (msgspec.DecodeError, ValueError):
        tag = None
    if not isinstance(tag, str):
        raise UsageError("these bytes are not a call of a declared state machine")
    return tag[:100]
