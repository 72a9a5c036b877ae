"""The registry of known bugs."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """A known bug: its name, the rule of the protocol that it breaks, and the patch that reintroduces it."""

    name: str
    breaks: str
    put_back: Patch


BUGS: dict[str, Bug] = {}


def bug(breaks: str) -> Callable[[Patch], Patch]:
    """Register a patch as a known bug; its name is the name of the bug."""

    def register(patch: Patch) -> Patch:
        name = patch.__name__.replace("_", " ")
        BUGS[name] = Bug(name, breaks, patch)
        return patch

    return register
