"""docs/reference/api.md has every public name, as the docstrings describe it."""

import ast
import importlib
from pathlib import Path

import pytest

from tests.api_reference import MODULES, PATH, render
from tests.documents import ROOT

_PUBLIC_EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.name != "ledger.py"]


def test_the_reference_of_the_public_names_is_up_to_date() -> None:
    assert PATH.read_text("utf-8") == render(), "run: python -m tests.api_reference --write"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_exists_and_is_in_the_reference(module: str) -> None:
    text = PATH.read_text("utf-8")
    names = importlib.import_module(module).__all__
    assert [name for name in names if f"### {name}\n" not in text] == ["__version__"] * (module == "pydsm")
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("path", _PUBLIC_EXAMPLES, ids=lambda path: path.stem)
def test_examples_import_nothing_of_pydsm_that_is_not_public(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pydsm"):
            assert node.module in MODULES
            assert {name.name for name in node.names} <= {*importlib.import_module(node.module).__all__, "blocking"}
        elif isinstance(node, ast.Import):
            assert all(not name.name.startswith("pydsm") or name.name in MODULES for name in node.names)
