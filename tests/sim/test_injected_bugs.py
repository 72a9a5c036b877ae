"""Checks the checkers: each known bug is found when it is reintroduced, and the same run succeeds without it."""

from importlib import import_module

import pytest

from tests.sim.injected import table
from tests.sim.injected.finds import FINDS, NOT_BY_CHANCE, Find
from tests.sim.injected.registry import BUGS


@pytest.mark.parametrize("find", FINDS, ids=lambda find: find.bug.replace(" ", "-"))
def test_a_reintroduced_bug_is_found_and_the_run_holds_without_it(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find.play() is None
    BUGS[find.bug].put_back(monkeypatch)
    assert find.play() == find.invariant


@pytest.mark.parametrize("bug", NOT_BY_CHANCE, ids=lambda bug: bug.replace(" ", "-"))
def test_a_bug_that_no_seed_finds_fails_the_test_of_its_rule(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, name = NOT_BY_CHANCE[bug].split("::")
    rule_holds = getattr(import_module(path.removesuffix(".py").replace("/", ".")), name)
    rule_holds()
    BUGS[bug].put_back(monkeypatch)
    with pytest.raises(AssertionError):
        rule_holds()


def test_the_page_has_the_present_table() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "python -m tests.sim.injected.table --write"


def test_every_known_bug_is_found_by_a_run_or_a_test() -> None:
    assert {find.bug for find in FINDS} | set(NOT_BY_CHANCE) == set(BUGS)
