"""Checks the linearizability of an endless history exactly, in windows, and removes what was checked.

A key's history is cut behind a call that overlaps with no other call and determines the whole state: an answered read,
or a write. Everything before the cut took effect before everything behind it, and the state at the cut is known, so the
whole history is linearizable exactly if its parts are.
"""

from collections.abc import Callable, Hashable, Sequence

from pydsm.sim.base.history import Call, Outcome
from pydsm.sim.checkers.linearizability import LinearizabilityResult, Linearizable, Model, check_key

StateAfter = Callable[[Call], Hashable | None]
"""The state of a key behind this call, if the call alone determines it; else None."""


class _From:
    """A model that begins with a given state."""

    def __init__(self, model: Model, state: Hashable) -> None:
        self._state = state
        self.step = model.step

    def initial(self, key: str) -> Hashable:
        """The given state."""
        return self._state


class Windows:
    """Checks the calls of keys, window by window, and keeps the state of each key behind the checked calls."""

    def __init__(self, model: Model, state_after: StateAfter) -> None:
        self._model = model
        self._state_after = state_after
        self._states: dict[str, Hashable] = {}

    def check(self, key: str, calls: Sequence[Call]) -> tuple[LinearizabilityResult, int]:
        """Check the calls before the last possible cut. Returns the verdict and the number of these calls.

        `calls` are all calls that were not checked before, in the order of their beginnings.
        """
        count = self._last_cut(calls)
        if not count:
            return Linearizable(0), 0
        verdict = self._check(key, calls[:count])
        self._states[key] = self._state_after(calls[count - 1])
        return verdict, count

    def check_rest(self, key: str, calls: Sequence[Call]) -> LinearizabilityResult:
        """Check the remaining calls, at the end."""
        return self._check(key, calls)

    def _check(self, key: str, calls: Sequence[Call]) -> LinearizabilityResult:
        state = self._states.get(key, self._model.initial(key))
        return check_key(key, calls, _From(self._model, state))

    def _last_cut(self, calls: Sequence[Call]) -> int:
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
