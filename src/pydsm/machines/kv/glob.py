"""Redis's patterns: `*`, `?`, `[abc]`, `[^a-z]`, and a backslash before a character that means itself."""

from collections.abc import Callable

_STAR = None
_ANYTHING = frozenset(range(256))


def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """Whether a text matches the whole pattern. Takes time that grows with pattern times text, never worse."""
    tokens = _tokens(pattern)
    if pattern == b"*":
        return lambda text: True

    def matches(text: bytes) -> bool:
        if not text:
            return not tokens  # Redis lets only one star match nothing at all, not two
        at, token, star, resume = 0, 0, -1, 0
        while at < len(text):
            allowed = tokens[token] if token < len(tokens) else frozenset[int]()
            if allowed is _STAR:
                star, resume = token, at
                token += 1
            elif text[at] in allowed:
                at, token = at + 1, token + 1
            elif star >= 0:  # let the last star take one character more
                resume += 1
                at, token = resume, star + 1
            else:
                return False
        return all(rest is _STAR for rest in tokens[token:])

    return matches


def _tokens(pattern: bytes) -> list[frozenset[int] | None]:
    """What each place allows; None for a star."""
    tokens: list[frozenset[int] | None] = []
    place = 0
    while place < len(pattern):
        character = pattern[place : place + 1]
        if character == b"*":
            if not tokens or tokens[-1] is not _STAR:
                tokens.append(_STAR)
        elif character == b"?":
            tokens.append(_ANYTHING)
        elif character == b"[":
            allowed, place = _class(pattern, place + 1)
            tokens.append(allowed)
        else:
            if character == b"\\" and place + 1 < len(pattern):
                place += 1
            tokens.append(frozenset((pattern[place],)))
        place += 1
    return tokens


def _class(pattern: bytes, place: int) -> tuple[frozenset[int], int]:
    """What a bracket allows, and where it ends; one that is not closed ends with the pattern."""
    negated = pattern[place : place + 1] == b"^"
    place += negated
    allowed: set[int] = set()
    while place < len(pattern) and pattern[place] != ord("]"):
        if pattern[place] == ord("\\") and place + 1 < len(pattern):
            place += 1
            allowed.add(pattern[place])
        elif place + 2 < len(pattern) and pattern[place + 1] == ord("-"):
            low, high = sorted((pattern[place], pattern[place + 2]))
            allowed.update(range(low, high + 1))
            place += 2
        else:
            allowed.add(pattern[place])
        place += 1
    return (_ANYTHING - allowed if negated else frozenset(allowed)), place
