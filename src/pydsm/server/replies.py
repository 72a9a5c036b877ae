"""Encodes answers in RESP2 and RESP3.

bytes become a bulk string, str a status, int and float numbers (RESP2: a float is a bulk string), None a null, list an
array, `Members` a set, dict a map and `Pairs` an array of pairs (RESP2: flat arrays), NO_LIST a null array, and
CommandFailed an error. `Aborted` and `Overloaded` become TRYAGAIN errors, which state that nothing was executed.
"""

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.core.sessions.result_ranges import weight
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import Members, NoList, Pairs
from pydsm.machines.kv.command import show_float
from pydsm.server.limits import RespLimits

_FRAME_BYTES = 16
"""Approximate size of one item besides its content."""


def encode_reply(answer: Answer, protocol: int, limits: RespLimits) -> bytes:
    """One reply in RESP2 or RESP3."""
    if isinstance(answer, bytes):
        return b"$%d\r\n%b\r\n" % (len(answer), answer)
    if isinstance(answer, str):
        return b"+%b\r\n" % answer.encode()
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, float):
        text = show_float(answer)
        return b",%b\r\n" % text if protocol == 3 else b"$%d\r\n%b\r\n" % (len(text), text)
    if isinstance(answer, NoList):
        return b"_\r\n" if protocol == 3 else b"*-1\r\n"
    if answer is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    if isinstance(answer, list | dict):
        return _aggregate(answer, protocol, limits)
    return error_line(_text_of(answer))


def error_line(text: str) -> bytes:
    """The encoding of an error. Its first word is a code in capitals; ERR is added if `text` has none."""
    code = text.split(" ", 1)[0]
    if not (code.isalpha() and code.isupper()):
        text = f"ERR {text}"
    return b"-%b\r\n" % text.replace("\r", " ").replace("\n", " ").encode(errors="backslashreplace")


def _text_of(answer: Answer) -> str:
    if isinstance(answer, CommandFailed):
        return answer.message
    if isinstance(answer, Aborted):
        return f"TRYAGAIN the command was not executed and never will be, send it again: {answer.reason}"
    if isinstance(answer, Overloaded):
        return f"TRYAGAIN the command was not taken and not executed, send it again later: {answer.reason}"
    return f"ERR the command was executed, but its result, a {type(answer).__name__}, has no form in this protocol"


def _aggregate(answer: list[object] | dict[object, object], protocol: int, limits: RespLimits) -> bytes:
    items: list[object] = answer if isinstance(answer, list) else [part for pair in answer.items() for part in pair]
    if protocol == 2 and isinstance(answer, Pairs):
        items = [part for pair in answer for part in pair]
    size = weight(items, limits.reply_bytes_max) + (_FRAME_BYTES - 1) * len(items)
    if size > limits.reply_bytes_max:
        return error_line(
            f"the reply has at least {size} bytes, over the limit of {limits.reply_bytes_max}; request less data"
        )
    head = b"*%d\r\n" % len(items)
    if protocol == 3 and isinstance(answer, dict):
        head = b"%%%d\r\n" % len(answer)
    elif protocol == 3 and isinstance(answer, Members):
        head = b"~%d\r\n" % len(items)
    return head + b"".join([encode_reply(item, protocol, limits) for item in items])
