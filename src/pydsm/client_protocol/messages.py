"""The wire format between native clients and replicas, without any I/O: handshake, requests, answers.

A connection begins with `CLIENT_PREAMBLE` and a hello message in a frame, from each side. Then the client sends frames
with a `ClientRequest`, each with many commands, and the replica frames with `ClientAnswers`, in the order in which
answers become known. Frames are those of `transport.frames`. Decoding returns a valid message or raises
PeerProtocolError.

Each command has a request id, in runs as in batches. For commands that it sends for the first time, a client uses ids
of the session that the replica grants in its `Welcome`, in ascending order; a command that is sent again keeps its id,
through any replica.

Results keep their types: bytes, str, int, float, None, lists and dicts of these. Types that only Redis's protocol
distinguishes become a plain list or None.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from pydsm.client_protocol.answers import Aborted, Answer, Overloaded
from pydsm.core.sessions.result_ranges import weight
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import SEQUENCES, is_tracked, sequence_of
from pydsm.core.types.messages import Run
from pydsm.core.wire.codec import DOES_NOT_PARSE
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import NoList
from pydsm.transport.frames import encode_frame

CLIENT_PROTOCOL_VERSION = 3

CLIENT_PREAMBLE = b"PyDSMc\0" + CLIENT_PROTOCOL_VERSION.to_bytes(2, "big")
"""The first bytes on a client's connection, in both directions."""

_FAILED = 1
_REFUSALS: dict[type[object], int] = {Aborted: 2, Overloaded: 3, SessionExpired: 4, RequestExpired: 5}
"""Codes of the answers without a result. They need extensions: msgspec would encode a dataclass as a map."""
_EXTENSIONS: dict[int, Callable[[str], object]] = {
    _FAILED: CommandFailed,
    **{code: refusal for refusal, code in _REFUSALS.items()},
}
_REQUEST_ID_BYTES = 16

Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class ClientHello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The client's hello. `group` is the name of the group that it expects; empty for any."""

    group: str


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The replica's hello. `ready`: whether it can serve commands now; `names`: the names of all members, in order.

    `grant` is a request id. Its session belongs to the client, which uses the sequences after it, or a later timestamp.
    A command may have at most `command_bytes_max` bytes.
    """

    group: str
    name: str
    replica: int
    names: tuple[str, ...]
    ready: bool
    grant: bytes
    command_bytes_max: Count


class CloseReason(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The last message of a replica that closes a connection: the reason."""

    reason: str


class ClientRequest(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Commands, numbered consecutively from `first`, and the runs of their request ids.

    A client numbers its commands on one connection without gaps.
    """

    first: Count
    commands: list[bytes]
    runs: list[Run]


class ClientAnswers(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Answers to commands: the numbers of the commands, and one answer for each."""

    numbers: list[Count]
    answers: list[Any]


FromClient = ClientHello | ClientRequest
FromReplica = Welcome | CloseReason | ClientAnswers


def _encode_other(value: object) -> object:
    match value:
        case CommandFailed():
            return msgspec.msgpack.Ext(_FAILED, value.message.encode())
        case NoList():
            return None
        case _:
            text = f"the command was executed, but its result, a {type(value).__name__}, has no form in this protocol"
            return msgspec.msgpack.Ext(_FAILED, text.encode())


def _wire_form(answer: Answer) -> object:
    if isinstance(answer, Aborted | Overloaded | SessionExpired | RequestExpired):
        return msgspec.msgpack.Ext(_REFUSALS[type(answer)], answer.reason.encode())
    return answer


def _from_extension(code: int, data: memoryview) -> object:
    make = _EXTENSIONS.get(code)
    if make is None:
        raise ValueError(f"there is no extension {code}")
    return make(bytes(data).decode(errors="replace"))


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_from_replica: msgspec.msgpack.Decoder[FromReplica] = msgspec.msgpack.Decoder(FromReplica, ext_hook=_from_extension)


def encode_message(message: FromClient | FromReplica) -> bytes:
    """A message in its frame. Raises OverflowError for a number in a result that has more than 64 bits."""
    return encode_frame(_encoder.encode(message))


def encode_answers(numbers: Sequence[int], answers: Sequence[Answer], answer_bytes_max: int) -> bytes:
    """Answers in frames. A result that cannot be sent becomes a failure that states this."""
    encoded = list(answers) if _REFUSALS.keys().isdisjoint(map(type, answers)) else list(map(_wire_form, answers))
    frame = b""
    # Estimated before encoding, so that one large value which is repeated many times is not encoded in vain.
    if weight(answers, answer_bytes_max) <= answer_bytes_max:
        with contextlib.suppress(OverflowError, RecursionError, UnicodeEncodeError):
            frame = encode_message(ClientAnswers(list(numbers), encoded))
    if 0 < len(frame) <= answer_bytes_max:
        return frame
    if len(answers) == 1:
        text = (
            f"the command was executed, but its result cannot be sent: it is over the limit of {answer_bytes_max} "
            "bytes, or of a type that this protocol cannot encode"
        )
        return encode_message(ClientAnswers(list(numbers), [CommandFailed(text)]))
    half = len(answers) // 2
    return encode_answers(numbers[:half], answers[:half], answer_bytes_max) + encode_answers(
        numbers[half:], answers[half:], answer_bytes_max
    )


def decode_from_client(payload: bytes) -> FromClient:
    """Decode a client's message. Raises PeerProtocolError if it is not valid."""
    try:
        message = _from_client.decode(payload)
    except DOES_NOT_PARSE as error:
        raise PeerProtocolError(f"a message of a client does not parse: {error}") from error
    if isinstance(message, ClientRequest):
        _check_runs(message)
    return message


def _check_runs(request: ClientRequest) -> None:
    named = 0
    for run in request.runs:
        if len(run.first) != _REQUEST_ID_BYTES or not is_tracked(run.first) or sequence_of(run.first) < 1:
            raise PeerProtocolError(f"{run.first.hex()} is not the id of a client's request")
        if sequence_of(run.first) + run.count > SEQUENCES:
            raise PeerProtocolError(
                "a run of request ids exceeds the last sequence: the client must begin another session"
            )
        named += run.count
    if named != len(request.commands):
        raise PeerProtocolError(f"a client sends {named} request ids for {len(request.commands)} commands")


def decode_from_replica(payload: bytes) -> FromReplica:
    """Decode a replica's message. Raises PeerProtocolError if it is not valid."""
    try:
        message = _from_replica.decode(payload)
    except (*DOES_NOT_PARSE, ValueError) as error:
        raise PeerProtocolError(f"a message of a replica does not parse: {error}") from error
    if isinstance(message, Welcome) and len(message.grant) != _REQUEST_ID_BYTES:
        raise PeerProtocolError("a replica grants no session")
    if isinstance(message, ClientAnswers) and len(message.numbers) != len(message.answers):
        raise PeerProtocolError("a replica sent different numbers of answers and command numbers")
    return message
