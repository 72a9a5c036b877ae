"""Text from elsewhere, such as names of replicas or messages of servers, made safe to print on a terminal."""


def printable(text: str) -> str:
    """The text with control characters, and whatever else a terminal could take for a command, written as escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def one_line(text: str) -> str:
    """The text in one line: white space folded, the rest as `printable`."""
    return printable(" ".join(text.split()))
