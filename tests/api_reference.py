"""Writes docs/reference/api.md from the docstrings of the public names; a test checks that it is up to date.

python -m tests.api_reference --write
"""

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from tests.documents import ROOT

PATH = ROOT / "docs" / "reference" / "api.md"
MODULES = ("pydsm", "pydsm.blocking", "pydsm.testing")
_HEAD = """# Public API

Everything that programs may import: `pydsm`, `pydsm.blocking` and `pydsm.testing`. How to use it:
[replicate a class](../howto/replicate-a-class.md). This page is made by `python -m tests.api_reference --write`.
"""
_SECTIONS = ("Args:", "Raises:", "Returns:", "Attributes:", "Example:")


def render() -> str:
    """The whole page."""
    parts = [_HEAD]
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        parts.append(f"## {module_name}\n")
        if module_name != "pydsm":
            parts.append(_text(module))
        names = [name for name in module.__all__ if not name.startswith("__")]
        parts += [_entry(module_name, name, getattr(module, name)) for name in names]
    return "\n".join(parts).rstrip() + "\n"


def _entry(module: str, name: str, value: Any) -> str:
    lines = [f"### {name}\n"]
    if inspect.isclass(value):
        bases = [base.__name__ for base in value.__bases__ if base.__name__ not in ("object", "Generic", "Exception")]
        given = f"({', '.join(bases)})" if bases else ""
        own = issubclass(value, BaseException) or "__init__" not in vars(value)
        lines.append(_code(f"class {name}{given}" if own else f"class {name}{_signature(value)}"))
        lines.append(_text(value))
        lines += [_member(name, attribute, member) for attribute, member in _members(value)]
    elif inspect.isfunction(value):
        lines.append(_code(f"{name}{_signature(value)}"))
        lines.append(_text(value))
    else:
        lines.append("In `reads`, `writes` or `updates`: the command conflicts with every command of its machine.\n")
    return "\n".join(lines)


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that the class defines, also in a base that is not public."""
    seen = set()
    for base in cls.__mro__:
        if base.__module__.startswith("pydsm.") and (base is cls or base.__name__ == "Blocking"):
            for attribute, member in vars(base).items():
                plain = inspect.isfunction(member) or isinstance(member, property)
                if not attribute.startswith("_") and plain and attribute not in seen and member.__doc__ is not None:
                    seen.add(attribute)
                    yield attribute, member


def _member(owner: str, attribute: str, member: Any) -> str:
    if isinstance(member, property):
        return f"{_code(f'{owner}.{attribute}')}\n{_text(member)}"
    given = "async " if inspect.iscoroutinefunction(member) else ""
    return f"{_code(f'{given}{owner}.{attribute}{_signature(member)}')}\n{_text(member)}"


def _signature(function: Any) -> str:
    text = str(inspect.signature(function))
    text = re.sub(r"\(self(?:, )?", "(", text)
    text = re.sub(r"(?:[a-z_]+\.)+([A-Z]\w*)", r"\1", text)
    return re.sub(r"(: |-> )'([^']+)'", r"\1\2", text).replace("~", "")


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _text(documented: Any) -> str:
    lines = (inspect.getdoc(documented) or "").splitlines()
    out: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        if line not in _SECTIONS:
            out.append(line)
            continue
        block = []
        while place < len(lines) and (lines[place].startswith(" ") or not lines[place]):
            block.append(lines[place])
            place += 1
        body = textwrap.dedent("\n".join(block)).strip("\n")
        if line == "Example:":
            out += ["```text", body, "```", ""]
        else:
            out += [f"{line[:-1]}:", "", *_items(body), ""]
    return "\n".join(out).rstrip() + "\n"


def _items(body: str) -> Iterator[str]:
    """Each entry of a section as an item of a list."""
    for line in re.sub(r"\n +", " ", body).splitlines():
        name, separator, rest = line.partition(": ")
        yield f"- `{name}`: {rest}" if separator and re.fullmatch(r"[\w, ]+", name) else f"- {line}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.api_reference --write")
    PATH.write_text(render(), encoding="utf-8")
