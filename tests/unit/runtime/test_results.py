"""Results in snapshots: encoding does not change the answer to a client."""

import pytest

from pydsm.machines.base import CommandFailed, CommandRaised, Result
from pydsm.machines.kv import NO_LIST, Members
from pydsm.runtime.results import decode_results, encode_results


def test_results_are_decoded_unchanged() -> None:
    results: list[Result] = [b"x", "OK", 7, 1.5, None, [b"a", [b"b"]], {b"k": b"v"}, CommandFailed("no")]
    assert decode_results(encode_results(results)) == results
    assert decode_results(encode_results([NO_LIST])) == [NO_LIST]
    assert decode_results(encode_results([Members([b"a"])])) == [[b"a"]]


def test_of_an_exception_only_its_class_is_kept_since_its_text_may_differ_between_replicas() -> None:
    one, other = CommandRaised("KeyError", "at 0x7f00"), CommandRaised("KeyError", "at 0x7f01")
    assert encode_results([one]) == encode_results([other])
    assert decode_results(encode_results([one])) == [one]


@pytest.mark.parametrize("odd", [object(), 2**70, "\ud800"])
def test_a_result_that_has_no_form_becomes_a_failure_and_the_others_stay(odd: object) -> None:
    first, second, third = decode_results(encode_results([b"x", odd, b"y"]))
    assert (first, third) == (b"x", b"y")
    assert isinstance(second, CommandFailed)
    assert "the command was executed" in second.message


def test_encoding_decoded_results_again_gives_the_same_bytes() -> None:
    encoded = encode_results([NO_LIST, Members([b"a"]), CommandFailed("no"), 2**70])
    assert encode_results(decode_results(encoded)) == encoded
