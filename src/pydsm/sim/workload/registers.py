"""The machine that the simulator replicates: integers by key, with commands of every kind of footprint.

A command is `ACTION KEY [NUMBER]` in ASCII: `read` and `write`, which return the earlier value; `add` and `top`, two
kinds of commuting updates that return nothing; `take`, which refuses to go below zero and so is a command that fails;
`when`, a read that also returns the time of its execution; `break`, a write that raises after it has written; and
`sum`, a barrier over all keys. Two commands name two keys: `both` reads them, `move` subtracts a number from the first
and adds it to the second, and both return the earlier values. A key that begins with `pair` stands for two cells that
are only read and written together; a read that finds them unequal returns a result that no sequential run can give.
"""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence

import msgspec

from pydsm.core.types.errors import UsageError
from pydsm.core.types.messages import Footprint
from pydsm.machines.base import CommandFailed, Result
from pydsm.sim.base.history import Call

REFUSED = "refused"
"""The text of the failure when a `take` asks for too much."""

PAIR = "pair"

RAISED = "raised"
"""The result of a `break`, as clients record it."""


class Broken(Exception):
    """The exception that a `break` raises."""


TWO = "two"
"""The first element of the result of a command over two keys."""


def cells(key: bytes) -> tuple[bytes, ...]:
    """The machine's cells for a key of clients."""
    return (key + b"/left", key + b"/right") if key.startswith(PAIR.encode()) else (key,)


class RegistersWithoutUndo:
    """A `StateMachine` with snapshots. A value that a `break` has written stays, at every replica alike."""

    def __init__(self) -> None:
        self._cells: dict[bytes, int] = {}
        self._applied = 0

    def footprint(self, commands: Sequence[bytes]) -> Footprint:
        """Returns reads, writes, and the two kinds of updates; a `sum` is a barrier."""
        columns: dict[bytes, dict[bytes, None]] = {}
        barrier = False
        for command in commands:
            action, *rest = command.split(b" ")
            if action == b"sum":
                barrier = True
                continue
            column = _COLUMNS.get(action)
            if column is None or not rest:
                raise UsageError(f"there is no command {action!r}: use read, when, write, add, top, take or sum")
            keys = rest[:2] if action in _OVER_TWO else rest[:1]
            columns.setdefault(column, {}).update(dict.fromkeys([cell for key in keys for cell in cells(key)]))
        return Footprint(
            reads=tuple(columns.get(b"reads", ())),
            writes=tuple(columns.get(b"writes", ())),
            updates=tuple((kind, tuple(columns[kind])) for kind in (b"add", b"top") if kind in columns),
            barrier=barrier,
        )

    def apply(self, commands: Sequence[bytes], timestamp_ms: int) -> list[Result]:
        """Returns one result per command."""
        return [
            [self._apply(b"read", command[5:]), timestamp_ms]
            if command.startswith(b"when ")
            else self._apply(*command.split(b" "))
            for command in commands
        ]

    def _apply(self, action: bytes, key: bytes = b"", number: bytes = b"0", amount_moved: bytes = b"0") -> Result:
        state = self._cells
        self._applied += 1
        if action in _OVER_TWO:
            results: Result = [TWO, state.get(key, 0), state.get(number, 0)]
            for cell, moved in ((key, -int(amount_moved)), (number, int(amount_moved))):
                if moved:
                    state[cell] = state.get(cell, 0) + moved
            return results
        amount = int(number)
        if action == b"sum":
            return self.digest().hex()
        names = cells(key)
        before = state.get(names[0], 0)
        if action == b"read":
            torn = any(state.get(name, 0) != before for name in names)
            return "torn" if torn else before
        if action in {b"write", b"break"}:
            state.update(dict.fromkeys(names, amount))
            if action == b"break":
                raise Broken(f"command {self._applied} of this machine")  # the number differs by replica
            return before
        if action == b"add":
            state[key] = before + amount
            return None
        if action == b"top":
            state[key] = max(before, amount)
            return None
        if amount > before:
            return CommandFailed(REFUSED)
        state[key] = before - amount
        return before

    def snapshot(self) -> Iterator[bytes]:
        """See `SupportsSnapshots`. A chunk has up to eight cells."""
        return _chunks({key: value for key, value in self._cells.items() if value})

    def restore(self, chunks: Iterable[bytes]) -> None:
        """See `SupportsSnapshots`."""
        self._cells = {key: value for chunk in chunks if chunk for key, value in _decode(chunk)}

    def digest(self) -> bytes:
        """Returns the SHA-256 of all cells that are not zero."""
        text = repr(sorted((key, value) for key, value in self._cells.items() if value))
        return hashlib.sha256(text.encode()).digest()


def _chunks(cells: dict[bytes, int]) -> Iterator[bytes]:
    names = sorted(cells)
    for place in range(0, len(names), 8):
        yield msgspec.msgpack.encode([(name, cells[name]) for name in names[place : place + 8]])
        yield b""


_decode = msgspec.msgpack.Decoder(list[tuple[bytes, int]]).decode
_OVER_TWO = frozenset((b"both", b"move"))
_COLUMNS = {
    b"read": b"reads",
    b"when": b"reads",
    b"write": b"writes",
    b"break": b"writes",
    b"take": b"writes",
    b"both": b"reads",
    b"move": b"writes",
    b"add": b"add",
    b"top": b"top",
}


class Registers(RegistersWithoutUndo):
    """`RegistersWithoutUndo` with savepoints: a value that a `break` has written is undone."""

    def __init__(self) -> None:
        super().__init__()
        self._marked = self._cells

    def savepoint(self) -> None:
        """See `SupportsUndo`."""
        self._marked = dict(self._cells)

    def rollback(self) -> None:
        """See `SupportsUndo`."""
        self._cells = dict(self._marked)


class KeyModel:
    """The sequential behaviour of one key, with which `linearizability` compares results."""

    def __init__(self, undoes: bool = True) -> None:
        self._undoes = undoes

    def initial(self, key: str) -> Hashable:
        """Returns zero."""
        return 0

    def step(self, state: Hashable, call: Call) -> tuple[object, Hashable]:
        """Returns the result and the value after the call."""
        assert isinstance(state, int)
        amount = call.argument if isinstance(call.argument, int) else 0
        match call.action:
            case "read":
                return state, state
            case "write":
                return state, amount
            case "break":
                return RAISED, state if self._undoes else amount
            case "add":
                return None, state + amount
            case "top":
                return None, max(state, amount)
            case _:
                return (REFUSED, state) if amount > state else (state, state - amount)

    def step_together(self, states: Sequence[Hashable], call: Call) -> tuple[object, Sequence[Hashable]]:
        """Returns the result of a call over two keys, and both values after the call."""
        assert isinstance(call.argument, int)
        left, right = states
        assert isinstance(left, int)
        assert isinstance(right, int)
        return (left, right), (left - call.argument, right + call.argument)
