"""Encodes results as bytes, for the snapshots of sessions, so that a native client gets the same result as before.

Bytes, str, int, float, None, lists and dicts of these are MessagePack; failures and `NO_LIST` are extensions. Types
that only Redis's protocol distinguishes become plain lists, because only native clients have sessions.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from pydsm.machines.base import CommandFailed, CommandRaised, Result
from pydsm.machines.kv import NO_LIST, NoList

_FAILED, _NO_LIST, _RAISED = 1, 2, 3
_TEXT_NOT_KEPT = "the first answer had a text, which is not kept"


def _extended(value: object) -> object:
    match value:
        case CommandRaised():
            return msgspec.msgpack.Ext(_RAISED, value.error_type.encode(errors="backslashreplace"))
        case CommandFailed():
            return msgspec.msgpack.Ext(_FAILED, value.message.encode(errors="backslashreplace"))
        case NoList():
            return msgspec.msgpack.Ext(_NO_LIST, b"")
        case _:
            return _extended(_formless(value))


def _formless(value: object) -> CommandFailed:
    return CommandFailed(f"the command was executed, but its result, a {type(value).__name__}, cannot be kept")


def _from_extension(code: int, data: memoryview) -> object:
    match code:
        case 1:
            return CommandFailed(bytes(data).decode())
        case 2:
            return NO_LIST
        case 3:
            return CommandRaised(bytes(data).decode(), _TEXT_NOT_KEPT)
        case _:
            raise ValueError(f"there is no extension {code}")


_encode = msgspec.msgpack.Encoder(enc_hook=_extended).encode
_decode: Callable[[bytes], list[Result]] = msgspec.msgpack.Decoder(list[Any], ext_hook=_from_extension).decode


def encode_results(results: list[Result]) -> bytes:
    """Encode a list of results. One that cannot be encoded is replaced by a failure that states this."""
    try:
        return _encode(results)
    except (OverflowError, RecursionError, UnicodeEncodeError):
        if len(results) == 1:
            return _encode([_formless(results[0])])
        return _encode([decode_results(encode_results([result]))[0] for result in results])


def decode_results(data: bytes) -> list[Result]:
    """Decode a list of results. Raises ValueError if the bytes are not such a list."""
    return _decode(data)
