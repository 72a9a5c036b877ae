"""Reads a verb's options from a TOML file. The command line and the environment take precedence.

Keys are the long options without their dashes; their names and types come from the signature of the verb's function.
Relative paths are relative to the file, so that it can be moved together with the files that it names. An error in the
file is reported in one line with the file, the key and the remedy.
"""

import difflib
import tomllib
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydsm.core.types.errors import UsageError

_DESCRIBED = {str: "text in quotes", bool: "true or false", int: "a whole number"}


def read_options(path: Path, verb: Callable[..., object]) -> dict[str, Any]:
    """The options in the file, by the names of the verb's parameters. Raises UsageError for unknown or invalid ones."""
    types = {
        name: _without_none(hint) for name, hint in get_type_hints(verb).items() if name not in ("config", "return")
    }
    return {_parameter(path, key, types): _value(path, key, value, types) for key, value in _read(path).items()}


def _without_none(hint: Any) -> Any:
    return next((one for one in get_args(hint) if one is not type(None)), hint)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte-order mark
    except OSError as error:
        raise UsageError(
            f"cannot read --config {path}: {error.strerror or error}; give a file that this process may read"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}; see docs/howto/configure.md") from error


def _parameter(path: Path, key: str, types: Mapping[str, Any]) -> str:
    keys = {name.replace("_", "-"): name for name in types}
    if key not in keys:
        near = difflib.get_close_matches(key, keys, n=1)
        hint = f"did you mean {near[0]}?" if near else "pydsm serve --help lists the options"
        raise UsageError(f"--config {path} has the unknown option {key!r}: {hint}")
    return keys[key]


def _value(path: Path, key: str, value: Any, types: Mapping[str, Any]) -> Any:
    wanted = types[_parameter(path, key, types)]
    if key == "peers" and isinstance(value, dict):
        return ",".join(f"{name}={_of_type(path, f'peers.{name}', one, str)}" for name, one in value.items())
    if issubclass(wanted, StrEnum):
        if value not in list(wanted):
            raise _wrong(path, key, value, f"one of {', '.join(wanted)}, in quotes")
        return value
    return str(path.parent / _of_type(path, key, value, str)) if wanted is Path else _of_type(path, key, value, wanted)


def _of_type(path: Path, key: str, value: Any, wanted: type) -> Any:
    if type(value) is not wanted:  # isinstance would accept true as an int
        raise _wrong(path, key, value, _DESCRIBED[wanted])
    return value


def _wrong(path: Path, key: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"--config {path} has {key} = {value!r}: give {wanted}")
