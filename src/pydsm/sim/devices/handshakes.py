"""The simulated handshakes with which replicas exchange their starts."""

from dataclasses import dataclass

from pydsm.core.protocol.starts import PeerReport, Start, StartInfo

StartStamp = tuple[int, int] | None
"""The sender's start number and durable position when a message was sent; None if starts are not checked."""


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """The first message on a connection."""

    greeting: StartInfo


@dataclass(frozen=True, slots=True)
class HandshakeReply:
    """The answer: the start of the answering replica, or None for a refusal; and its records of the other one."""

    to: Start
    """The start that is answered: an answer to an earlier start belongs to a closed connection."""
    greeting: StartInfo | None
    remembered: PeerReport


SimulatedHandshake = HandshakeRequest | HandshakeReply
