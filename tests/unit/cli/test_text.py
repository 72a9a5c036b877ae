"""Text of replicas and servers is made safe for terminals."""

from pydsm.cli.text import one_line, printable


def test_control_characters_are_shown_as_escapes() -> None:
    assert printable("r1\x1b[31m\u202e\n") == "r1\\x1b[31m\\u202e\\n"
    assert printable("größe 1") == "größe 1"


def test_message_of_several_lines_becomes_one() -> None:
    assert one_line("a\n  b\x07\r\nc") == "a b\\x07 c"
