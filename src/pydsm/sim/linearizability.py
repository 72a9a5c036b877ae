"""Could one copy of the data, doing one operation at a time, have given these answers?

Wing and Gong's search with Lowe's memory of configurations that were seen before, one key at a time: a history is
linearizable exactly when each of its keys is, because every call names one key. The search keeps its own stack.

A call whose outcome is unknown may take effect at any time after it began, or never. Such calls are tried last and
only where they change the state, so they cost little until an answer cannot be explained without them.

Who knows in which order calls probably took effect can say so in `Call.rank`: then a good history is checked without
a step back, however many calls overlap. A wrong guess costs time and changes no verdict.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydsm.sim.history import Call, History, Outcome

CONFIGURATIONS_MAX = 2_000_000
"""Configurations looked at for one key before the search gives up as undecided."""


class Model(Protocol):
    """One key's sequential behaviour."""

    def initial(self, key: str) -> Hashable:
        """The state before any call."""
        ...

    def step(self, state: Hashable, call: Call) -> tuple[object, Hashable]:
        """The result that this call gives in this state, and the state after it. Changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Linearizable:
    """An order was found for every key."""

    configurations: int


@dataclass(frozen=True, slots=True)
class NotLinearizable:
    """No order explains this key's answers. `longest` is as far as any order went, `stuck` what could not follow."""

    key: str
    longest: tuple[Call, ...]
    stuck: tuple[Call, ...]

    def __str__(self) -> str:
        ending = "".join(f"\n  {call}" for call in self.longest[-8:])
        stuck = "".join(f"\n  {call}" for call in self.stuck[:8])
        return f"key {self.key}: {len(self.longest)} calls can be ordered, ending in{ending}\nthen none of{stuck}"


@dataclass(frozen=True, slots=True)
class Undecided:
    """The search was too long for this key: too many calls at the same time, or too many unknown outcomes."""

    key: str
    configurations: int


Verdict = Linearizable | NotLinearizable | Undecided


def check(history: History, model: Model, configurations_max: int = CONFIGURATIONS_MAX) -> Verdict:
    """Every key of a history. The first key that is not linearizable, else the first undecided one, is reported."""
    looked_at = 0
    undecided: Undecided | None = None
    for key, calls in history.by_key().items():
        verdict = check_key(key, calls, model, configurations_max)
        if isinstance(verdict, NotLinearizable):
            return verdict
        if isinstance(verdict, Undecided):
            undecided = undecided or verdict
        else:
            looked_at += verdict.configurations
    return undecided or Linearizable(looked_at)


def check_key(key: str, calls: Sequence[Call], model: Model, configurations_max: int = CONFIGURATIONS_MAX) -> Verdict:
    """The calls of one key. A call that is still open counts as one of unknown outcome; a failed one must not occur."""
    return _Search(key, calls, model).run(configurations_max)


_NEVER = 1 << 62


@dataclass(slots=True)
class _Frame:
    """A configuration on the way down: its state, what may come next, and what was chosen."""

    state: Hashable
    first: int
    candidates: Iterator[int]
    chosen: int = -1


class _Search:
    """Depth-first over orders. Positions name calls: the answered ones first, by beginning, then the unknown ones."""

    def __init__(self, key: str, calls: Sequence[Call], model: Model) -> None:
        answered = sorted((call for call in calls if call.outcome is Outcome.DONE), key=lambda call: call.began)
        unknown = sorted((call for call in calls if call.outcome is not Outcome.DONE), key=lambda call: call.began)
        self._key = key
        self._model = model
        self._calls = [*answered, *unknown]
        self._answered = len(answered)
        self._ends = [_NEVER if call.ended is None else call.ended for call in answered]
        self._ranks = [call.rank for call in self._calls]
        self._ordered = [False] * len(self._calls)
        self._mask = 0
        self._seen: set[tuple[int, Hashable]] = set()

    def run(self, configurations_max: int) -> Verdict:
        frames = [self._frame(self._model.initial(self._key), 0)]
        left = self._answered
        longest: list[int] = []
        stuck: list[int] = []
        while left:
            frame = frames[-1]
            after = self._advance(frame)
            if after is not None:
                left -= frame.chosen < self._answered
                frames.append(after)
                if len(self._seen) > configurations_max:
                    return Undecided(self._key, len(self._seen))
                continue
            if len(frames) > len(longest) or not longest:
                longest = [one.chosen for one in frames[:-1]]
                stuck = self._candidates(frame.first)
            frames.pop()
            if not frames:
                return NotLinearizable(self._key, self._named(longest), self._named(stuck))
            left += frames[-1].chosen < self._answered
            self._toggle(frames[-1].chosen)
        return Linearizable(len(self._seen))

    def _named(self, positions: list[int]) -> tuple[Call, ...]:
        return tuple(self._calls[position] for position in positions)

    def _toggle(self, position: int) -> None:
        self._ordered[position] = not self._ordered[position]
        self._mask ^= 1 << position

    def _frame(self, state: Hashable, first: int) -> _Frame:
        while first < self._answered and self._ordered[first]:
            first += 1
        return _Frame(state, first, iter(self._candidates(first)))

    def _candidates(self, first: int) -> list[int]:
        """What may come next: calls that began before any other call that is left has ended."""
        earliest_end = _NEVER
        found = []
        for position in range(first, self._answered):
            if self._calls[position].began > earliest_end:
                break
            if not self._ordered[position]:
                found.append(position)
                earliest_end = min(earliest_end, self._ends[position])
        for position in range(self._answered, len(self._calls)):
            if self._calls[position].began > earliest_end:
                break
            if not self._ordered[position]:
                found.append(position)
        found.sort(key=self._ranks.__getitem__)
        return found

    def _advance(self, frame: _Frame) -> _Frame | None:
        """Order the next candidate that fits and leads somewhere new; None when there is none."""
        for position in frame.candidates:
            call = self._calls[position]
            result, state = self._model.step(frame.state, call)
            if position < self._answered:
                if result != call.result:
                    continue
            elif state == frame.state:
                continue  # it may as well never have happened
            configuration = (self._mask | 1 << position, state)
            if configuration in self._seen:
                continue
            self._seen.add(configuration)
            self._toggle(position)
            frame.chosen = position
            return self._frame(state, frame.first)
        return None
