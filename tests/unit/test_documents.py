"""What the documents promise: links lead somewhere, targets of make exist, and Python in them runs as it stands."""

import ast
import linecache
import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from pydsm.cli.main import app
from pydsm.core.types.messages import Message
from pydsm.machines.kv import COMMANDS
from pydsm.server.commands import LOCAL_COMMANDS
from tests.documents import ROOT, blocks

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@every_document
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (document.parent / link).exists()] == []


@every_document
def test_every_file_of_the_source_that_is_named_exists(document: Path) -> None:
    named = re.findall(
        r"`((?:src/pydsm/|core/|runtime/|storage/|transport/|sim/|machines/|server/)[\w/]+\.py)`",
        document.read_text("utf-8"),
    )
    paths = [ROOT / name if name.startswith("src/") else ROOT / "src/pydsm" / name for name in named]
    assert [str(path) for path in paths if not path.exists()] == []


def test_every_document_that_the_source_names_exists() -> None:
    named = {
        name
        for source in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"docs/[\w/-]+\.md", source.read_text("utf-8"))
    }
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_reference_names_every_command_of_the_redis_port() -> None:
    named = set(re.findall(r"`([A-Z]+)`", (ROOT / "docs/reference/redis-commands.md").read_text("utf-8")))
    assert {command.decode() for command in (*COMMANDS, *LOCAL_COMMANDS)} <= named


def test_the_formats_give_the_number_of_every_message() -> None:
    text = (ROOT / "docs/reference/formats.md").read_text("utf-8")
    assert [
        kind.__name__ for kind in get_args(Message) if f"| {kind.__struct_config__.tag} | {kind.__name__} |" not in text
    ] == []


QUOTING = sorted((ROOT / "tests/protocol").glob("test_*.py"))


@pytest.mark.parametrize("tests", QUOTING, ids=lambda path: path.stem)
def test_every_sentence_that_the_protocol_tests_quote_is_in_the_normative_text(tests: Path) -> None:
    text = _plain((ROOT / "docs/reference/protocol.md").read_text("utf-8"))
    quotes = [quote for docstring in _docstrings(tests) for quote in re.findall(r'"([^"]+)"', docstring)]
    parts = [_plain(part).strip(" ,;:.()") for quote in quotes for part in quote.split("[...]")]
    assert [part for part in parts if part not in text] == []
    assert parts


def _docstrings(path: Path) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef | ast.Module)]


def _plain(text: str) -> str:
    """Without marks of Markdown, differences of white space, and capitals."""
    return " ".join(re.sub(r"[`*\\]", "", text).split()).lower()


@every_document
def test_every_target_of_make_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", document.read_text("utf-8")))
    named |= {
        target for block in blocks(document, "sh") for target in re.findall(r"^make ([a-z]+)", block, re.MULTILINE)
    }
    assert named <= targets


@every_document
def test_python_in_a_document_runs_as_it_stands(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, block in enumerate(blocks(document, "python")):
        file = f"<block {number} of {document}>"
        linecache.cache[file] = (len(block), None, block.splitlines(keepends=True), file)  # as an editor would have it
        exec(compile(block, file, "exec"), {"__name__": "__main__"})
    assert "Traceback" not in capsys.readouterr().err


@every_document
def test_every_verb_and_option_of_pydsm_that_is_shown_exists(document: Path) -> None:
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    for shown in filter(None, (re.match(r"pydsm (\w+)([^#&]*)", line) for line in lines)):
        help = CliRunner().invoke(app, [shown[1], "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert help.exit_code == 0, shown[0]
        assert [option for option in re.findall(r"--[\w-]+", shown[2]) if option not in help.output] == [], shown[0]
