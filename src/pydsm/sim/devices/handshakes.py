"""Simulated handshakes, with which replicas exchange their starts."""

from dataclasses import dataclass

from pydsm.core.protocol.starts import PeerReport, Start, StartInfo

StartStamp = tuple[int, int] | None
"""The number of the sender's start, and how much was durable there, when a message left; None where nobody looks."""


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """The first greeting on a connection."""

    greeting: StartInfo


@dataclass(frozen=True, slots=True)
class HandshakeReply:
    """The answer: a greeting, or a refusal, with what is remembered."""

    to: Start
    """Who asked: an answer to an earlier start is of a connection that is gone."""
    greeting: StartInfo | None
    remembered: PeerReport


SimulatedHandshake = HandshakeRequest | HandshakeReply
