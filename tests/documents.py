"""What stands in the documents, for tests that hold them to it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
