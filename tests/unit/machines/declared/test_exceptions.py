"""The exception that a command raises is the one that its caller gets."""

from typing import Any

import pytest

from pydsm import CommandError, StateMachine, command
from tests.unit.machines.declared.test_execution import Direct


class TextOfItsOwn(Exception):
    """Gives its base class another text than its argument."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"no {sku}")
        self.sku = sku


class MoreThanItsArguments(Exception):
    """Has an attribute that is not an argument of its base class."""

    def __init__(self, sku: str, left: int = 0) -> None:
        super().__init__(sku)
        self.left = left


class WithAnObject(Exception):
    """Has an attribute that cannot be encoded."""

    def __init__(self, sku: str) -> None:
        super().__init__(sku)
        self.context = object()


class Ends(StopIteration):
    """A class of one's own that ends iterations."""


class Raising(StateMachine):
    """Raises what is asked for."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command
    def fail(self, what: str) -> None:
        self.stock["bolt"] = 1
        match what:
            case "text":
                raise TextOfItsOwn("bolt")
            case "more":
                raise MoreThanItsArguments("bolt", left=3)
            case "object":
                raise WithAnObject("bolt")
            case "key":
                del self.stock["nut"]
            case "key of numbers":
                raise KeyError(("nut", 3))
            case "key of an object":
                raise KeyError(Raising)
            case "end":
                next(iter([]))
            case "own end":
                raise Ends
            case "exit":
                raise SystemExit(3)
            case _:
                raise AssertionError


def raised(what: str) -> Any:
    direct = Direct(Raising)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks at it
        direct("fail", what)
    assert direct.machine.fields() == {"stock": {}}, "undone"
    return caught.value


def test_an_exception_with_a_text_of_its_own_has_that_text_once_and_its_attributes() -> None:
    error = raised("text")
    assert (type(error), error.args, error.sku) == (TextOfItsOwn, ("no bolt",), "bolt")


def test_an_exception_has_the_attributes_that_are_not_among_its_arguments() -> None:
    error = raised("more")
    assert (type(error), error.args, error.left) == (MoreThanItsArguments, ("bolt",), 3)


def test_attributes_that_cannot_be_encoded_are_those_of_a_new_exception() -> None:
    error = raised("object")
    assert (type(error), error.args, type(error.context)) == (WithAnObject, ("bolt",), object)


def test_a_key_error_has_the_key() -> None:
    assert raised("key").args == ("nut",)
    assert raised("key of numbers").args == (("nut", 3),)
    assert "Raising" in raised("key of an object").args[0]


@pytest.mark.parametrize(("what", "name"), [("end", "StopIteration"), ("own end", "Ends"), ("exit", "SystemExit")])
def test_an_exception_that_means_something_else_to_a_coroutine_is_a_command_error(what: str, name: str) -> None:
    error = raised(what)
    assert type(error) is CommandError
    assert error.error_type == name
