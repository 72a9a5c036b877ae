"""Executes the calls of a declared class: the low-level state machine that the runtime replicates.

Decides what a command that raises leaves behind: nothing. Guarantees that results and states do not depend on which
replica executes, on the order of commands that do not conflict, or on whether anyone reads the results. The version of
the class that executes changes at one agreed point, when every replica has announced the next one (`versions`).
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pydsm.core.types.errors import OperationalError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import Result
from pydsm.machines.declared import results, snapshots
from pydsm.machines.declared.declaration import StateMachine
from pydsm.machines.declared.guard import Guard
from pydsm.machines.declared.kinds import DeclarationError, encode, encode_canonical
from pydsm.machines.declared.signatures import Signature
from pydsm.machines.declared.state import State
from pydsm.machines.declared.versions import Announcement, Versions, tag_of
from pydsm.machines.failures import text_of

log = logging.getLogger("pydsm.machine")

_DIGEST_BYTES = 32
_LOCAL_FAULTS = (KeyboardInterrupt, MemoryError, OperationalError)
"""Not caused by a command; they stop the replica. See `failures`."""
_Table = dict[type, tuple[Callable[[Any, Any], Any], frozenset[type], bool, Signature]]


class DeclaredMachine:
    """A StateMachine with snapshots. `member` and `members` are this replica's number and the size of the group.

    Without them, the machine executes the version of its class from the beginning, and announces nothing.
    """

    handles_failures = True

    def __init__(
        self,
        cls: type[StateMachine],
        member: int | None = None,
        members: int | None = None,
        *,
        guarded: bool = False,
        logs: bool = True,
    ) -> None:
        """`guarded`: watch what commands call, see `guard`. `logs`: log exceptions that are probably mistakes.

        Raises DeclarationError.
        """
        self.cls = cls
        self._guarded = guarded
        self._logs = logs
        self._versions = Versions(cls, member, members)
        self._logged: set[tuple[str, type[BaseException]]] = set()
        self._begin(_new(self._versions.first))

    def _begin(self, machine: StateMachine, state: State | None = None) -> None:
        self._machine = machine
        self._state = state or State(machine)
        calls = self._versions.calls[type(machine)]
        self._decode, self._decode_many = calls.decode, calls.decode_many
        self._table: _Table = {
            struct: (signature.run, signature.plain_results, signature.method.is_query, signature)
            for struct, signature in calls.signatures.items()
        }
        self._end_keeping: Callable[[], None] | None = None

    def reset(self) -> None:
        """Begin again with the first state, for tests."""
        self._begin(_new(self._versions.first))

    # Footprints

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """See `StateMachine`."""
        reads: dict[bytes, None] = {}
        writes: dict[bytes, None] = {}
        updates: dict[bytes, dict[bytes, None]] = {}
        barrier = False
        for signature, call in self._versions.signatures_of(commands):
            if signature is None or signature.is_everything:
                barrier = True
                continue
            if signature.updates is not None:
                kind = updates.get(signature.kind)
                if kind is None:
                    kind = updates[signature.kind] = {}
                for key in signature.updates(call):
                    kind[key] = None
            if signature.writes is not None:
                for key in signature.writes(call):
                    writes[key] = None
            if signature.reads is not None:
                for key in signature.reads(call):
                    reads[key] = None
        only_read = tuple([key for key in reads if key not in writes]) if writes else tuple(reads)
        return Footprint(
            reads=only_read,
            writes=tuple(writes),
            updates=tuple((kind, tuple(keys)) for kind, keys in updates.items()),
            barrier=barrier,
        )

    # Execution

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `StateMachine`."""
        return self._apply(commands, timestamp_ms, unread=False)

    def apply_unread(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """See `SupportsReadSkipping`."""
        return self._apply(commands, timestamp_ms, unread=True)

    def _apply(self, commands: Sequence[bytes], timestamp_ms: int, *, unread: bool) -> list[Result]:
        self._state.agreed.timestamp_ms = timestamp_ms
        try:
            # The leader of the batch has decoded each command alone, so no command can contain a second one.
            calls = self._decode_many(b"\xdd%b%b" % (len(commands).to_bytes(4, "big"), b"".join(commands)))
        except msgspec.DecodeError:
            return [self._apply_one(command, unread=unread) for command in commands]
        if len(calls) == 1 and type(calls[0]) is Announcement:
            return [self._announced(calls[0])]
        return self._execute(calls, commands, unread=unread)

    def _apply_one(self, command: bytes, *, unread: bool) -> Result:
        try:
            call = self._decode(command)
        except msgspec.DecodeError:
            return results.not_available(tag_of(command), self.version)
        if type(call) is Announcement:
            return self._announced(call)
        return self._execute([call], (command,), unread=unread)[0]

    def _execute(self, calls: Sequence[Any], commands: Sequence[bytes], *, unread: bool) -> list[Result]:
        machine, state, table = self._machine, self._state, self._table
        agreed, journal = state.agreed, state.journal
        changes, given, seen = journal.changes, journal.given, journal.seen
        guard = Guard(agreed)
        answers: list[Result] = []
        answer = answers.append
        for call in calls:
            try:
                run, plain, is_query, signature = table[type(call)]
            except KeyError:  # an announcement between commands
                answer(self._apply_one(commands[len(answers)], unread=unread))
                if self._machine is not machine:
                    rest = len(answers)
                    return answers + [self._apply_one(command, unread=unread) for command in commands[rest:]]
                continue
            if is_query and unread:
                answer(None)
                continue
            agreed.call = call
            try:
                if self._guarded:
                    with guard:
                        result = run(machine, call)
                else:
                    result = run(machine, call)
                if result is not None:
                    result = encode(result) if type(result) in plain else _encoded(result, signature)
                if changes or seen:
                    if is_query and journal.has_changes:
                        raise TypeError(f"{signature.where} is a query, and must not change anything")
                    if given or seen:
                        journal.settle()
                    changes.clear()
            except _LOCAL_FAULTS:
                raise
            except BaseException as error:
                journal.undo()
                result = self._raised(error, signature)
            answer(result)
        agreed.call = None
        return answers

    def _raised(self, error: BaseException, signature: Signature) -> Result:
        kind = type(error)
        if self._logs and not results.is_own(kind) and (signature.where, kind) not in self._logged:
            self._logged.add((signature.where, kind))
            log.warning(
                "%s raised %s, at every replica alike; its caller gets the exception (logged once)",
                signature.where,
                kind.__name__,
                exc_info=error,
            )
        error.__traceback__ = None
        return results.raised(error)

    # Versions

    def _announced(self, announcement: Announcement) -> Result:
        for following in self._versions.announced(announcement, type(self._machine)):
            self._migrate(following)
        return None

    def _migrate(self, following: type[StateMachine]) -> None:
        """Every replica has the next version: replace the machine object by one of that version.

        Raises OperationalError if its `migrate` fails, which stops the replica: nothing of the new version could be
        executed, and the announcement is executed again at the next start, with a class that is right.
        """
        timestamp_ms = self._state.agreed.timestamp_ms
        machine = _new(following)
        try:
            machine.migrate(self._machine)
            state = State(machine)
        except Exception as error:
            raise OperationalError(
                f"{following.__name__}.migrate failed, {type(error).__name__}: {text_of(error)}; start every replica "
                "with a class whose migrate succeeds, nothing is lost"
            ) from error
        if self._end_keeping is not None:
            self._end_keeping = None  # the former object stays as it is, so a snapshot in progress needs nothing kept
        self._begin(machine, state)
        self._state.agreed.timestamp_ms = timestamp_ms
        log.info("the state is migrated to version %d of %s", following.version, following.__name__)

    def due_commands(self, now_ms: int) -> list[bytes]:
        """See `SupportsScheduledCommands`: the announcement of this replica's version, until it is executed."""
        return self._versions.to_announce()

    @property
    def version(self) -> int:
        """The version that the group executes."""
        return type(self._machine).version

    def fields(self) -> dict[str, Any]:
        """The present values of the fields, for reports of tests."""
        return {name: self._state.value(name) for name in self._state.kinds}

    # Snapshots

    def snapshot(self) -> Iterator[bytes]:
        """See `SupportsSnapshots`."""
        steps = self._chunks()
        next(steps)  # start the generator, so that closing it before its first chunk also runs `finally`
        return steps

    def _chunks(self) -> Iterator[bytes]:
        machine = self._machine
        own = getattr(machine, "snapshot", None)
        if own is not None:
            head = snapshots.Head(snapshots.FORMAT, machine.version, dict(self._versions.by_member), {})
            chunks = iter(own())
            yield b""
            yield encode(head)
            yield from chunks
            return
        chunks, end = snapshots.freeze(self._state, machine.version, dict(self._versions.by_member))
        self._end_keeping = end
        try:
            yield b""
            yield from chunks
        finally:
            if self._end_keeping is end:
                self._end_keeping = None
            end()

    def restore(self, chunks: Iterable[bytes]) -> None:
        """See `SupportsSnapshots`."""
        given = filter(None, chunks)
        try:
            first = next(given)
        except StopIteration:
            raise ValueError("a snapshot without chunks") from None
        head = snapshots.head_of(first)
        cls = self._versions.of(head.version)
        machine = _new(cls)
        own = getattr(machine, "restore", None)
        if own is not None:
            own(given)
            self._begin(machine)
        else:
            values = snapshots.thaw(head, given, cls._declaration.fields)
            self._begin(machine)
            for name, value in values.items():
                self._state.put(name, value)
        self._versions.by_member = dict(head.versions)

    def digest(self) -> bytes:
        """See `StateMachine`. Takes time that grows with the size of the state."""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        own = getattr(self._machine, "digest", None)
        if own is not None:
            return bytes(own())
        digest.update(encode_canonical([type(self._machine).version, self._versions.by_member]))
        for name in self._state.kinds:
            digest.update(encode_canonical([name, self._state.value(name)]))
        return digest.digest()

    def keys_in(self, chunk: bytes) -> list[bytes]:
        """See `SupportsKeyListing`."""
        return snapshots.keys_in(chunk)


def _new(cls: type[StateMachine]) -> StateMachine:
    try:
        return cls()
    except TypeError as error:
        raise DeclarationError(f"{cls.__name__}() failed: {error}; __init__ takes no arguments") from error


def _encoded(result: object, signature: Signature) -> bytes:
    """A result as bytes. Raises TypeError if the annotation of the method does not allow it."""
    encoded = encode_canonical(result)
    if signature.plain_results:
        try:
            signature.decode_result(encoded)
        except msgspec.MsgspecError as error:
            raise TypeError(f"{signature.where} returned what its annotation does not allow: {error}") from None
    return encoded
