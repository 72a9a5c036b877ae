"""The wire format between native clients and replicas, without any I/O: greeting, requests, answers.

A connection begins with `CLIENT_PREAMBLE` and a greeting in a frame, from each side. Then the client sends frames of
`ClientRequest`, many commands in each, and the replica frames of `ClientAnswers`, in whatever order answers become
known. Frames are those of `transport.frames`. Whatever arrives is a right message or a PeerProtocolError.

Each command has a request id, in runs as in batches. A client names those that it sends for the first time in the
session that the replica grants in its greeting, in ascending order; what it sends again keeps its id, through whichever
replica.

Results come back as they were: bytes, str, int, float, None, lists and dicts of these. What only Redis's protocol tells
apart is a plain list or None here.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from pydsm.core.sessions.result_ranges import weight
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.ids import SEQUENCES, is_tracked, sequence_of
from pydsm.core.types.messages import Run
from pydsm.core.wire.codec import DOES_NOT_PARSE
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import NoList
from pydsm.runtime.batching import Aborted, Answer, Overloaded
from pydsm.transport.frames import encode_frame

CLIENT_PROTOCOL_VERSION = 3

CLIENT_PREAMBLE = b"PyDSMc\0" + CLIENT_PROTOCOL_VERSION.to_bytes(2, "big")
"""The first bytes on a client's connection, in both directions."""

_FAILED = 1
_REFUSALS: dict[type[object], int] = {Aborted: 2, Overloaded: 3, SessionExpired: 4, RequestExpired: 5}
"""Why there is no result. Said explicitly: a dataclass would become a map by itself."""
_EXTENSIONS: dict[int, Callable[[str], object]] = {
    _FAILED: CommandFailed,
    **{code: refusal for refusal, code in _REFUSALS.items()},
}
_REQUEST_ID_BYTES = 16

Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class ClientHello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The client greets. `group` is the one that it means; empty for any."""

    group: str


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The replica greets. `ready` says whether it can serve at this moment, `names` has every member's name.

    `grant` is a request id whose session is the client's, from the next sequence on, or from a later time on. No
    command may be longer than `command_bytes_max`.
    """

    group: str
    name: str
    replica: int
    names: tuple[str, ...]
    ready: bool
    grant: bytes
    command_bytes_max: Count


class CloseReason(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The last thing said by a replica that closes a connection: why."""

    reason: str


class ClientRequest(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Commands, numbered from `first` on, and the runs of their request ids.

    A client numbers its commands on one connection without gaps.
    """

    first: Count
    commands: list[bytes]
    runs: list[Run]


class ClientAnswers(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """What became of some commands: their numbers, and as many answers."""

    numbers: list[Count]
    answers: list[Any]


FromClient = ClientHello | ClientRequest
FromReplica = Welcome | CloseReason | ClientAnswers


def _extended(value: object) -> object:
    match value:
        case CommandFailed():
            return msgspec.msgpack.Ext(_FAILED, value.message.encode())
        case NoList():
            return None
        case _:
            text = f"the command was executed, but its result, a {type(value).__name__}, has no form in this protocol"
            return msgspec.msgpack.Ext(_FAILED, text.encode())


def _told(answer: Answer) -> object:
    if isinstance(answer, Aborted | Overloaded | SessionExpired | RequestExpired):
        return msgspec.msgpack.Ext(_REFUSALS[type(answer)], answer.reason.encode())
    return answer


def _from_extension(code: int, data: memoryview) -> object:
    make = _EXTENSIONS.get(code)
    if make is None:
        raise ValueError(f"there is no extension {code}")
    return make(bytes(data).decode(errors="replace"))


_encoder = msgspec.msgpack.Encoder(enc_hook=_extended)
_from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_from_replica: msgspec.msgpack.Decoder[FromReplica] = msgspec.msgpack.Decoder(FromReplica, ext_hook=_from_extension)


def encode_message(message: FromClient | FromReplica) -> bytes:
    """A message in its frame. Raises OverflowError for a number in a result that has more than 64 bits."""
    return encode_frame(_encoder.encode(message))


def encode_answers(numbers: Sequence[int], answers: Sequence[Answer], answer_bytes_max: int) -> bytes:
    """Answers in their frame; one that cannot be sent is told as a failure after the execution."""
    told = list(answers) if _REFUSALS.keys().isdisjoint(map(type, answers)) else list(map(_told, answers))
    frame = b""
    if weight(answers, answer_bytes_max) <= answer_bytes_max:  # one value many times over is not made bytes of
        with contextlib.suppress(OverflowError, RecursionError, UnicodeEncodeError):
            frame = encode_message(ClientAnswers(list(numbers), told))
    if 0 < len(frame) <= answer_bytes_max:
        return frame
    if len(answers) == 1:
        text = (
            f"the command was executed, but its result cannot be sent: it is over the limit of {answer_bytes_max} "
            "bytes, or of no kind that can be"
        )
        return encode_message(ClientAnswers(list(numbers), [CommandFailed(text)]))
    half = len(answers) // 2
    return encode_answers(numbers[:half], answers[:half], answer_bytes_max) + encode_answers(
        numbers[half:], answers[half:], answer_bytes_max
    )


def decode_from_client(payload: bytes) -> FromClient:
    """Raises PeerProtocolError for what no client sends."""
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
                "a run of request ids goes on past the last sequence: a client begins another session"
            )
        named += run.count
    if named != len(request.commands):
        raise PeerProtocolError(f"a client sends {named} request ids for {len(request.commands)} commands")


def decode_from_replica(payload: bytes) -> FromReplica:
    """Raises PeerProtocolError for what no replica sends."""
    try:
        message = _from_replica.decode(payload)
    except (*DOES_NOT_PARSE, ValueError) as error:
        raise PeerProtocolError(f"a message of a replica does not parse: {error}") from error
    if isinstance(message, Welcome) and len(message.grant) != _REQUEST_ID_BYTES:
        raise PeerProtocolError("a replica grants no session")
    if isinstance(message, ClientAnswers) and len(message.numbers) != len(message.answers):
        raise PeerProtocolError("a replica sends more answers than numbers, or fewer")
    return message
