"""What others chose is harmless in the log, and bounded in number."""

import logging

import pytest

from pydsm.logs import LogLimiter, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("r2", "r2"),
        ("a name with spaces, ümlauts and 漢字", "a name with spaces, ümlauts and 漢字"),
        ("r2\n2026-01-01 r1 INFO all is well", "r2\\x0a2026-01-01 r1 INFO all is well"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b\U000e0001", "a\\u2028b\\U000e0001"),
    ],
)
def test_text_of_others_is_one_line_without_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(printable(text)) == shown


def test_long_text_is_cut() -> None:
    assert printable("x" * 300) == "x" * 197 + "..."
    assert printable("x" * 200) == "x" * 200
    assert len(printable("\n" * 10_000_000, 50)) == 50


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def limiter(clock: Clock, **limits: int) -> LogLimiter:
    """Three lines of a kind in ten seconds."""
    return LogLimiter(logging.getLogger("pydsm.test"), period_seconds=10, clock=clock, **limits)


def test_lines_of_one_kind_are_limited_and_the_next_period_says_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    limited = limiter(clock)
    for _ in range(100):
        limited.warning("a stranger", "refused %s", "it")
    limited.warning("another", "refused another")
    assert caplog.messages[:3] == ["refused it"] * 3
    assert len(caplog.messages) == 4
    clock.seconds = 10
    limited.warning("a stranger", "refused %s", "it")
    limited.warning("a stranger", "refused %s", "it")
    assert "97 lines left out" in "".join(caplog.messages)
    assert caplog.messages[-1] == "refused it"


def test_all_kinds_together_are_limited_and_cost_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limited = limiter(clock, total_max=5, kinds_max=10)
    for number in range(1000):
        limited.warning(number, "refused %d", number)
    assert caplog.messages == [f"refused {number}" for number in range(5)]
    assert len(limited._kinds) == 10
    clock.seconds = 10
    limited.warning("more", "refused again")
    assert caplog.messages[-1] == "refused again (and 995 lines left out before, 0 of them like this one)"
