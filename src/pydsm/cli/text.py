"""Makes text from other sources, such as names of replicas or messages of servers, safe to print on a terminal."""


def printable(text: str) -> str:
    """The text with control characters, and everything else that controls a terminal, as escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def one_line(text: str) -> str:
    """The text as one line: white space collapsed, the rest as in `printable`."""
    return printable(" ".join(text.split()))
