"""Every known bug by its name."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """A known bug: its name, the rule of PROTOCOL that it breaks, and how it is put back."""

    name: str
    breaks: str
    put_back: Patch


BUGS: dict[str, Bug] = {}


def bug(breaks: str) -> Callable[[Patch], Patch]:
    """Register a patch as the bug that its name says."""

    def register(patch: Patch) -> Patch:
        name = patch.__name__.replace("_", " ")
        BUGS[name] = Bug(name, breaks, patch)
        return patch

    return register
