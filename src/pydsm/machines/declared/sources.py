"""Finds in the source of a command what would not be the same at every replica, when its class is defined.

Decides from the text alone, so it cannot find everything: calls through other functions and modules are left to
`guard`, which looks at what is really called, while a group is developed.
"""

import ast
import builtins
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from pydsm.machines.declared.forbidden import reason_against
from pydsm.machines.declared.kinds import DeclarationError

_ORDER_DOES_NOT_MATTER = frozenset({"sorted", "set", "frozenset", "sum", "min", "max", "any", "all", "len"})
_KEEP_THE_ORDER = frozenset({"list", "tuple", "iter", "next", "enumerate", "zip", "map", "filter", "dict", "reversed"})
_SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)


def check_source(function: Callable[..., Any], where: str, cls: type) -> None:
    """Raises DeclarationError, with file and line, for a command that is not the same at every replica.

    Such a command reads a clock, draws random numbers, does I/O, or iterates over a set; itself, or in methods of its
    class and functions of its module that it calls. Functions without source are not looked at.
    """
    _check(function, where, cls, function.__module__, set())


def _check(function: Callable[..., Any], where: str, cls: type, module: str, seen: set[object]) -> None:
    seen.add(function)
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    search = _Search(function, cls)
    for line, text in search.findings(tree):
        file = function.__code__.co_filename
        raise DeclarationError(f"{file}:{first + line - 1}: {where} {text}")
    for called in search.calls(tree):
        if called not in seen and called.__module__ == module:
            _check(called, f"{where} calls {called.__name__}, which", cls, module, seen)


class _Search:
    """Of one function."""

    def __init__(self, function: Callable[..., Any], cls: type) -> None:
        self._cls = cls
        self._globals = function.__globals__
        code = function.__code__
        self._local = {*code.co_varnames, *code.co_cellvars}
        self._free = _nonlocals(function)
        self._sets: set[str] = set()
        self._frozen_fields = frozenset(_frozen_fields(cls))
        self._harmless: set[int] = set()
        """Generators whose order does not matter."""

    def findings(self, tree: ast.AST) -> Iterator[tuple[int, str]]:
        """Each with its line, counted from the first of the function."""
        self._sets = set(_set_parameters(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and self._is_set(node.value):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self._sets.update(target.id for target in targets if isinstance(target, ast.Name))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node) in _ORDER_DOES_NOT_MATTER:
                self._harmless.update(id(one) for one in node.args)
        for node in ast.walk(tree):
            text = self._against(node)
            if text is not None:
                yield getattr(node, "lineno", 1), text

    def calls(self, tree: ast.AST) -> Iterator[Callable[..., Any]]:
        """The functions that it calls, as far as their names show which these are."""
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            match node.func:
                case ast.Attribute(value=ast.Name(id="self"), attr=name):
                    found = inspect.getattr_static(self._cls, name, None)
                case other:
                    found = self._resolve(other)
            found = getattr(found, "__func__", found)
            if inspect.isfunction(found):
                yield found

    def _against(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Call):
            found = self._resolve(node.func)
            reason = None if found is None else reason_against(found)
            if reason is not None:
                return f"calls {ast.unparse(node.func)}: {reason}"
            if _called(node) in _KEEP_THE_ORDER and any(map(self._is_set, node.args)):
                return _iterates(node.args)
            if isinstance(node.func, ast.Attribute):
                if node.func.attr == "join" and any(map(self._is_set, node.args)):
                    return _iterates(node.args)
                if node.func.attr == "pop" and self._is_set(node.func.value):
                    return _iterates([node.func.value])
        elif isinstance(node, ast.For) and self._is_set(node.iter):
            return _iterates([node.iter])
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            if id(node) not in self._harmless:
                over = [one.iter for one in node.generators if self._is_set(one.iter)]
                return _iterates(over) if over else None
        elif isinstance(node, ast.Starred) and self._is_set(node.value):
            return _iterates([node.value])
        elif isinstance(node, ast.AsyncFor | ast.Await | ast.Yield | ast.YieldFrom):
            return "awaits or yields: a command is executed at once"
        return None

    def _is_set(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Name):
            return node.id in self._sets
        if isinstance(node, ast.Attribute):  # a field that is a set has an order, see `sets`
            return ast.unparse(node.value) == "self" and node.attr in self._frozen_fields
        if isinstance(node, ast.BinOp) and isinstance(node.op, _SET_OPERATORS):
            return self._is_set(node.left) or (not isinstance(node.op, ast.Sub) and self._is_set(node.right))
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                return node.func.id in {"set", "frozenset"} and node.func.id not in self._local
            if isinstance(node.func, ast.Attribute):
                return node.func.attr in _SET_METHODS and self._is_set(node.func.value)
        return False

    def _resolve(self, node: ast.AST) -> Any:
        """What a name in the source stands for; None if that is not known before the function runs."""
        if isinstance(node, ast.Name):
            if node.id in self._local:
                return None
            for names in (self._free, self._globals, vars(builtins)):
                if node.id in names:
                    return names[node.id]
            return None
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value)
            if owner is not None and (inspect.ismodule(owner) or inspect.isclass(owner)):
                return getattr(owner, node.attr, None)
        return None


def _nonlocals(function: Callable[..., Any]) -> dict[str, Any]:
    """The variables of surrounding functions that it uses, except those without a value yet."""
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    found = {}
    for name, cell in zip(names, cells, strict=True):
        with suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def _called(node: ast.Call) -> str | None:
    return node.func.id if isinstance(node.func, ast.Name) else None


def _iterates(over: list[ast.expr]) -> str:
    return (
        f"iterates over the set {ast.unparse(over[0])}, in an order that differs between replicas: "
        f"use sorted({ast.unparse(over[0])})"
    )


def _frozen_fields(cls: type) -> Iterator[str]:
    """The fields that are annotated as frozenset: they have the order of the builtin type."""
    for base in cls.__mro__:
        for name, of in inspect.get_annotations(base).items():
            if of.startswith("frozenset") if isinstance(of, str) else frozenset in (of, typing.get_origin(of)):
                yield name
        with suppress(KeyError, OSError, TypeError, SyntaxError):
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(vars(base)["__init__"])))):
                match node:
                    case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=of):
                        if ast.unparse(of).startswith("frozenset"):
                            yield name


def _set_parameters(tree: ast.AST) -> Iterator[str]:
    """The parameters that are annotated as sets."""
    for node in ast.walk(tree):
        annotation = node.annotation if isinstance(node, ast.arg) else None
        if annotation is not None and ast.unparse(annotation).partition("[")[0] in {"set", "frozenset"}:
            yield cast(ast.arg, node).arg
