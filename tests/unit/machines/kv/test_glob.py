"""Patterns, compared with a simple recursive matcher; the cost grows with the text only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydsm.machines.base import CommandFailed
from pydsm.machines.kv.glob import PATTERN_BYTES_MAX, matcher

PARTS = st.sampled_from([b"*", b"*", b"?", b"a", b"b", b"[ab]", b"[^a]", b"[a-b]", b"\\a", b"A"])
TEXTS = st.lists(st.sampled_from([b"a", b"b", b"c", b"A"]), min_size=1, max_size=8).map(b"".join)


def simply(parts: list[bytes], text: bytes) -> bool:
    """Whether the text matches, by trying all alternatives."""
    if not parts:
        return not text
    first, rest = parts[0], parts[1:]
    if first == b"*":
        return any(simply(rest, text[place:]) for place in range(len(text) + 1))
    allowed = {b"?": b"abcA", b"[ab]": b"ab", b"[^a]": b"bcA", b"[a-b]": b"ab", b"\\a": b"a"}.get(first, first)
    return bool(text) and text[0] in allowed and simply(rest, text[1:])


@given(st.lists(PARTS, max_size=8), TEXTS)
def test_a_text_matches_exactly_when_some_choice_for_the_stars_lets_it(parts: list[bytes], text: bytes) -> None:
    assert matcher(b"".join(parts))(text) == simply(parts, text)


@given(st.lists(PARTS, max_size=8), TEXTS)
def test_case_is_ignored_where_that_is_wanted(parts: list[bytes], text: bytes) -> None:
    lower = [part.lower() for part in parts]
    assert matcher(b"".join(parts), ignore_case=True)(text) == simply(lower, text.lower())


class Counted(bytes):
    """A text that counts how often one of its characters is looked at."""

    looks = 0

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        self.looks += 1
        return super().__getitem__(place)


def test_each_character_is_looked_at_once_however_many_stars_there_are() -> None:
    text = Counted(b"a" * 20_000)
    assert not matcher(b"*a?" * 1000 + b"*[ab]b?*")(text)
    assert text.looks <= len(text) + 10_000


def test_literals_between_stars_are_searched_for_without_looking_at_characters_in_python() -> None:
    text = Counted(b"a" * 2_000_000)
    assert not matcher(b"*a" * 2000 + b"*b*")(text)
    assert text.looks == 0


def test_a_pattern_over_the_limit_is_refused_with_the_limit() -> None:
    assert matcher(b"x" * PATTERN_BYTES_MAX)(b"x" * PATTERN_BYTES_MAX)
    with pytest.raises(CommandFailed, match="ERR the pattern has 4097 bytes, over the limit of 4096"):
        matcher(b"*" * (PATTERN_BYTES_MAX + 1))
