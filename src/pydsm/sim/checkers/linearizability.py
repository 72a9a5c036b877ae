"""Checks whether a history is linearizable: whether a single copy of the data could have given the same answers.

Uses the search of Wing and Gong with Lowe's cache of configurations, one key at a time: a history is linearizable
exactly if the history of each key is, as long as every call names one key. Keys that a call names together are searched
together. The search uses its own stack.

Calls of one program (`Call.program`) must take effect in their order. This relates keys to each other: an order for
each single key is not enough. So a history with programs is also searched as a whole, which is short if `Call.rank` is
a good guess; and pairs of keys are searched if the whole takes too long: if the whole is linearizable, every pair is.

A call with an unknown outcome may take effect at any time after it began, or never. Such calls are tried last, and only
if they change the state, so they cost little until an answer cannot be explained without them.

The caller may set `Call.rank` to the order in which the calls probably took effect. Then a linearizable history is
checked without backtracking, however many calls overlap. A wrong guess costs time and changes no verdict.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Protocol, cast

from pydsm.sim.base.history import Call, History, Outcome

CONFIGURATIONS_MAX = 2_000_000
"""Maximum number of configurations for one key; beyond it, the search ends as undecided."""


class Model(Protocol):
    """The sequential behaviour of one key."""

    def initial(self, key: str) -> Hashable:
        """The state before any call."""
        ...

    def step(self, state: Hashable, call: Call) -> tuple[object, Hashable]:
        """The result that this call has in this state, and the state after it. The model itself has no state."""
        ...


class JointModel(Model, Protocol):
    """A model that supports calls over several keys."""

    def step_together(self, states: Sequence[Hashable], call: Call) -> tuple[object, Sequence[Hashable]]:
        """Like `step`, with the state of each of the call's keys."""
        ...


@dataclass(frozen=True, slots=True)
class Linearizable:
    """An order was found for every key."""

    configurations: int


@dataclass(frozen=True, slots=True)
class NotLinearizable:
    """No order explains the answers of this key. `longest` is the longest order found, `stuck` the calls after it."""

    key: str
    longest: tuple[Call, ...]
    stuck: tuple[Call, ...]

    def __str__(self) -> str:
        ending = "".join(f"\n  {call}" for call in self.longest[-8:])
        stuck = "".join(f"\n  {call}" for call in self.stuck[:8])
        return f"key {self.key}: {len(self.longest)} calls can be ordered, ending in{ending}\nthen none of{stuck}"


@dataclass(frozen=True, slots=True)
class Undecided:
    """The search for this key was too long: too many concurrent calls, or too many unknown outcomes."""

    key: str
    configurations: int


LinearizabilityResult = Linearizable | NotLinearizable | Undecided


def check(history: History, model: Model, configurations_max: int = CONFIGURATIONS_MAX) -> LinearizabilityResult:
    """Check a whole history. Returns the first key that is not linearizable, else the first undecided one."""
    looked_at = 0
    undecided: Undecided | None = None
    for keys, calls in _together(history):
        check_these = partial(check_key, keys[0]) if len(keys) == 1 else partial(check_keys, keys)
        verdict = check_these(calls, model, configurations_max)
        if isinstance(verdict, NotLinearizable):
            return verdict
        if isinstance(verdict, Undecided):
            undecided = undecided or verdict
        else:
            looked_at += verdict.configurations
    verdict = _check_programs(history, model, configurations_max)
    if isinstance(verdict, Linearizable):
        return undecided or Linearizable(looked_at + verdict.configurations)
    return verdict


def _together(history: History) -> list[tuple[list[str], list[Call]]]:
    """Groups of keys that calls name together, and the calls of each group; most groups have one key."""
    group: dict[str, list[str]] = {}
    for call in history.calls:
        if call.outcome is Outcome.FAILED:
            continue
        keys = group.setdefault(call.key, [call.key])
        for other in call.other_keys:
            others = group.setdefault(other, [other])
            if others is not keys:
                keys += others
                group.update(dict.fromkeys(others, keys))
    groups = {id(keys): (keys, list[Call]()) for keys in group.values()}
    for call in history.calls:
        if call.outcome is not Outcome.FAILED:
            groups[id(group[call.key])][1].append(call)
    return list(groups.values())


def _check_programs(history: History, model: Model, configurations_max: int) -> LinearizabilityResult:
    """Check the order of calls of each program, over all keys; if that is undecided, over each pair of keys."""
    calls = [call for call in history.calls if call.outcome is not Outcome.FAILED]
    if all(call.program is None for call in calls):
        return Linearizable(0)
    keys = sorted({key for call in calls for key in call.keys})
    whole = check_keys(keys, calls, model, min(configurations_max, 4 * len(calls) + _DETOURS_MAX))
    if not isinstance(whole, Undecided):
        return whole
    for two in combinations(keys, 2):
        of_two = [call for call in calls if set(call.keys) <= set(two)]
        if any(set(call.keys) & set(two) and not set(call.keys) <= set(two) for call in calls):
            continue  # other keys change these, so this pair alone decides nothing
        verdict = check_keys(two, of_two, model, configurations_max)
        if isinstance(verdict, NotLinearizable):
            return verdict
    return whole


_DETOURS_MAX = 20_000
"""Maximum number of configurations for a whole history, in addition to those of a good guess."""


def check_keys(
    keys: Sequence[str], calls: Sequence[Call], model: Model, configurations_max: int = CONFIGURATIONS_MAX
) -> LinearizabilityResult:
    """Check the calls of some keys together, and those of each program in their order."""
    name = " ".join(keys)
    return _Search(name, calls, _Joint(keys, model)).run(configurations_max)


class _Joint:
    """A model of several keys: its state has one entry for each key."""

    def __init__(self, keys: Sequence[str], model: Model) -> None:
        self._keys = keys
        self._positions = {key: place for place, key in enumerate(keys)}
        self._model = model

    def initial(self, key: str) -> Hashable:
        return tuple(self._model.initial(one) for one in self._keys)

    def step(self, state: Hashable, call: Call) -> tuple[object, Hashable]:
        assert isinstance(state, tuple)
        after = list(state)
        if call.other_keys:
            model = cast(JointModel, self._model)
            places = [self._positions[key] for key in call.keys]
            result, changed = model.step_together([state[place] for place in places], call)
            for place, value in zip(places, changed, strict=True):
                after[place] = value
        else:
            place = self._positions[call.key]
            result, after[place] = self._model.step(state[place], call)
        return result, tuple(after)


def check_key(
    key: str, calls: Sequence[Call], model: Model, configurations_max: int = CONFIGURATIONS_MAX
) -> LinearizabilityResult:
    """Check the calls of one key. Open calls count as calls of unknown outcome; failed calls must not occur."""
    return _Search(key, calls, model).run(configurations_max)


_NEVER = 1 << 62


@dataclass(slots=True)
class _Frame:
    """One level of the search: the state, the calls that may come next, and the call that was chosen."""

    state: Hashable
    first: int
    candidates: Iterator[int]
    chosen: int = -1


class _Search:
    """Depth-first search. Positions number the calls: answered ones first, by beginning, then unknown ones."""

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
        self._before, self._behind = _neighbours(self._calls)
        self._seen: set[tuple[int, Hashable]] = set()

    def run(self, configurations_max: int) -> LinearizabilityResult:
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
        """Calls that may come next: they began before the end of every other remaining call."""
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
        if self._before or self._behind:
            found = [position for position in found if self._is_next_in_program(position)]
        found.sort(key=self._ranks.__getitem__)
        return found

    def _is_next_in_program(self, position: int) -> bool:
        """Whether all answered calls before it in its program are ordered, and none behind it is."""
        before, behind = self._before.get(position), self._behind.get(position)
        return (before is None or self._ordered[before]) and (behind is None or not self._ordered[behind])

    def _advance(self, frame: _Frame) -> _Frame | None:
        """Order the next candidate that fits and leads to a new configuration; None if there is none."""
        for position in frame.candidates:
            call = self._calls[position]
            result, state = self._model.step(frame.state, call)
            if position < self._answered:
                if result != call.result:
                    continue
            elif state == frame.state:
                continue  # equal to the case that the call never took effect
            configuration = (self._mask | 1 << position, state)
            if configuration in self._seen:
                continue
            self._seen.add(configuration)
            self._toggle(position)
            frame.chosen = position
            return self._frame(state, frame.first)
        return None


def _neighbours(calls: Sequence[Call]) -> tuple[dict[int, int], dict[int, int]]:
    """For each call of a program: the nearest answered call before it, and, if its outcome is unknown, behind it.

    Calls are numbered by position; within a program, the order of beginnings is the order of sending.
    """
    programs: dict[object, list[int]] = {}
    for position, call in enumerate(calls):
        if call.program is not None:
            programs.setdefault(call.program, []).append(position)
    before: dict[int, int] = {}
    behind: dict[int, int] = {}
    for positions in programs.values():
        positions.sort(key=lambda position: calls[position].number)
        last: int | None = None
        unknown: list[int] = []
        for position in positions:
            if last is not None:
                before[position] = last
            if calls[position].outcome is Outcome.DONE:
                behind.update(dict.fromkeys(unknown, position))
                last, unknown = position, []
            else:
                unknown.append(position)
    return before, behind
