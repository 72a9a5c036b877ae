"""Checks whether a history is linearizable: whether one copy of the data could have given these answers.

Wing and Gong's search with Lowe's memory of configurations that were seen before, one key at a time: a history is
linearizable exactly when each of its keys is, as long as every call names one key. Keys that some call names together
are searched together. The search keeps its own stack.

Calls of one program (`Call.program`) must come in their order. That binds keys to each other as well: it is not enough
that each key has an order of its own. So a history with programs is searched as a whole besides, where a good guess
(`Call.rank`) makes it short; and two keys at a time where the whole takes too long, since whatever is right as a whole
is right for every two keys.

A call whose outcome is unknown may take effect at any time after it began, or never. Such calls are tried last and
only where they change the state, so they cost little until an answer cannot be explained without them.

The caller may set `Call.rank` to the order in which calls probably took effect: then a good history is checked without
a step back, however many calls overlap. A wrong guess costs time and changes no verdict.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Protocol, cast

from pydsm.sim.base.history import Call, History, Outcome

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


class JointModel(Model, Protocol):
    """One that knows calls over several keys."""

    def step_together(self, states: Sequence[Hashable], call: Call) -> tuple[object, Sequence[Hashable]]:
        """As `step`, with the state of each of the call's keys."""
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


LinearizabilityResult = Linearizable | NotLinearizable | Undecided


def check(history: History, model: Model, configurations_max: int = CONFIGURATIONS_MAX) -> LinearizabilityResult:
    """A whole history. The first keys that are not linearizable, else the first undecided ones, are reported."""
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
    """Keys that calls name together, and their calls; most often each key by itself."""
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
    """The order of calls that were sent in a row, over all keys; else over each two of them."""
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
            continue  # what others do to them is not told by these two alone
        verdict = check_keys(two, of_two, model, configurations_max)
        if isinstance(verdict, NotLinearizable):
            return verdict
    return whole


_DETOURS_MAX = 20_000
"""Configurations that a search of a whole history looks at besides those of a good guess."""


def check_keys(
    keys: Sequence[str], calls: Sequence[Call], model: Model, configurations_max: int = CONFIGURATIONS_MAX
) -> LinearizabilityResult:
    """The calls of some keys together, and those of each program in their order."""
    name = " ".join(keys)
    return _Search(name, calls, _Joint(keys, model)).run(configurations_max)


class _Joint:
    """A model of several keys at once: its state has one entry for each."""

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
        if self._before or self._behind:
            found = [position for position in found if self._is_next_in_program(position)]
        found.sort(key=self._ranks.__getitem__)
        return found

    def _is_next_in_program(self, position: int) -> bool:
        """Whether what was answered before it is ordered, and nothing that was answered behind it."""
        before, behind = self._before.get(position), self._behind.get(position)
        return (before is None or self._ordered[before]) and (behind is None or not self._ordered[behind])

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


def _neighbours(calls: Sequence[Call]) -> tuple[dict[int, int], dict[int, int]]:
    """Of each call in a program: the nearest answered one before it, and for those of unknown outcome behind it.

    Positions; beginnings of one program are in the order in which its calls were sent.
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
