"""Linearizability of a history without an end: checked in windows, exactly, and forgotten.

A key's history is cut behind a call that overlaps with no other one and tells the whole state: a read that was
answered, or a write. Everything before it came before everything behind it, and the state in between is known, so the
whole is linearizable exactly when the parts are.
"""

from collections.abc import Callable, Hashable, Sequence

from pydsm.sim.base.history import Call, Outcome
from pydsm.sim.checkers.linearizability import LinearizabilityResult, Linearizable, Model, check_key

StateAfter = Callable[[Call], Hashable | None]
"""The state of a key behind this call, if the call alone tells it."""


class _From:
    """A model that begins with a known state."""

    def __init__(self, model: Model, state: Hashable) -> None:
        self._state = state
        self.step = model.step

    def initial(self, key: str) -> Hashable:
        """The known state."""
        return self._state


class Windows:
    """Give it the calls of one key again and again; it keeps the state behind what was checked."""

    def __init__(self, model: Model, state_after: StateAfter) -> None:
        self._model = model
        self._state_after = state_after
        self._states: dict[str, Hashable] = {}

    def check(self, key: str, calls: Sequence[Call]) -> tuple[LinearizabilityResult, int]:
        """The verdict over the calls before the last place to cut, and how many those are.

        `calls` are all that were not checked before, by their beginnings.
        """
        count = self._place_to_cut(calls)
        if not count:
            return Linearizable(0), 0
        verdict = self._check(key, calls[:count])
        self._states[key] = self._state_after(calls[count - 1])
        return verdict, count

    def check_rest(self, key: str, calls: Sequence[Call]) -> LinearizabilityResult:
        """The verdict over all that is left, at the end."""
        return self._check(key, calls)

    def _check(self, key: str, calls: Sequence[Call]) -> LinearizabilityResult:
        state = self._states.get(key, self._model.initial(key))
        return check_key(key, calls, _From(self._model, state))

    def _place_to_cut(self, calls: Sequence[Call]) -> int:
        place = 0
        latest_end = -1
        for number, call in enumerate(calls):
            if call.outcome is not Outcome.DONE or call.ended is None:
                break
            alone = call.began > latest_end and (number + 1 == len(calls) or calls[number + 1].began > call.ended)
            latest_end = max(latest_end, call.ended)
            if alone and self._state_after(call) is not None:
                place = number + 1
        return place
