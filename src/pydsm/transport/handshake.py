"""The handshake between replicas, and which peers it accepts: the same rules on every transport.

Accepts only members of this group: peers with the same list of members, with the group's secret where there is one, and
with the data directory that the group has seen before. A peer in another epoch is accepted: its messages inform a
replica that it has missed a change of members, so refusing it would isolate the one that is behind
(`docs/reference/protocol.md`, section 8). Its epoch is stored for reports. Groups of different epochs may differ in
their members; of one epoch, they may not.

    the side that dialled                     the side that was dialled
    Hello: members, 32 random bytes    ->
                                       <-     Hello: members, 32 random bytes
    Claim: incarnation, proof          ->
                                       <-     Confirmation: fingerprint, proof

The side that dialled proves first, so that an unauthenticated caller receives only the names and addresses of the
members. This module handles bytes, without connections.
"""

import logging
import secrets
from collections.abc import Callable, Collection

import msgspec

from pydsm.core.protocol.starts import PeerReport, StartInfo
from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import Epoch, ReplicaId
from pydsm.logs import LogLimiter, printable
from pydsm.transport.base import Admit, LocalIdentity, StartExchange
from pydsm.transport.frames import (
    NONCE_BYTES,
    PREAMBLE,
    Claim,
    Confirmation,
    HandshakeMessage,
    Hello,
    Refusal,
    Stamp,
    decode_handshake,
    encode_handshake,
    handshake_payload,
)
from pydsm.transport.members import digest, shown, to_send

log = logging.getLogger("pydsm.transport")

REASON_CHARACTERS_MAX = 2000
_CLAIM, _CONFIRMATION, _REFUSAL = b"dialled", b"was dialled", b"refuses"
_GIVE_THE_SAME = "give --peers the same names in the same order everywhere"


class RefusedByPeer(PeerProtocolError):
    """The peer sent the reason why it closes the connection; no answer is sent."""


class OlderStart(PeerProtocolError):
    """The peer runs from older data than this replica has seen from it."""

    def __init__(self, reason: str, report: PeerReport) -> None:
        super().__init__(reason)
        self.report = report


class HandshakeValidator:
    """Makes and validates handshake messages.

    `peers` are the other members; `admit` decides about incarnations, `starts` about starts.
    """

    def __init__(self, me: LocalIdentity, peers: Collection[ReplicaId], admit: Admit, starts: StartExchange) -> None:
        self.epochs: dict[ReplicaId, Epoch] = {}
        """See `transport.base.Transport`."""
        self.fingerprints: dict[ReplicaId, int] = {}
        """See `transport.base.Transport`."""
        self.me = me
        self.peers = frozenset(peers)
        self.own_nonces: set[bytes] = set()
        """Nonces of connections that this replica is dialling: it has sent a Hello with one of them itself."""
        self._admit = admit
        self._log_limiter = LogLimiter(log)
        self._starts = starts
        self._digest = digest(me.listed)
        self._members = to_send(me.listed)

    def hello(self) -> Hello:
        """The first message on a connection."""
        me = self.me
        return Hello(
            group=me.group,
            replica=me.replica,
            name=me.name,
            replicas=me.replicas,
            members_digest=self._digest,
            members=self._members,
            epoch=me.epoch,
            nonce=secrets.token_bytes(NONCE_BYTES),
            proves=me.secret is not None,
        )

    def stamp(self) -> Stamp:
        """The stamp of a frame that is sent now."""
        return Stamp(*self._starts.stamp)

    def check_stamp(self, peer: ReplicaId, stamp: Stamp) -> None:
        """Check the stamp of a received frame.

        Raises OlderStart if it is of a start that is no longer accepted.
        """
        reason = self._starts.check_stamp(peer, stamp.start, stamp.position)
        if reason is not None:
            raise OlderStart(reason, self._starts.report_on(peer))

    def start_info(self, to: ReplicaId | None) -> StartInfo:
        """The start of this replica; with the report about the peer `to`, if that is authenticated."""
        return self._starts.start_info(to)

    def check_start(self, peer: ReplicaId, mark: int, info: StartInfo) -> None:
        """Raises OlderStart if the peer lacks data that it had before; `mark` is the fingerprint of its incarnation."""
        reason = self._starts.check_start(peer, mark, info)
        if reason is not None:
            raise OlderStart(reason, self._starts.report_on(peer))

    def note_peer_report(self, report: PeerReport | None) -> None:
        """Check a peer's report about this replica. A report from another group or epoch is ignored."""
        if report is None:
            return
        if report.by in self.peers and len(report.executed) == self.me.replicas:
            self._starts.check_report(report)

    def decode(self, payload: bytes) -> HandshakeMessage:
        """The handshake message in a frame.

        Raises PeerProtocolError for anything else, and RefusedByPeer with the reason for a Refusal.
        """
        message = decode_handshake(payload)
        if isinstance(message, Refusal):
            raise RefusedByPeer(f"it refuses us: {printable(message.reason, REASON_CHARACTERS_MAX)}")
        return message

    def check_group(self, hello: Hello) -> None:
        """Raises PeerProtocolError unless the sender was started for the same group with the same members."""
        me = self.me
        them = printable(hello.name, 64)
        if hello.group != me.group:
            raise PeerProtocolError(
                f"{them} is of group {printable(hello.group)!r}, {me.name} of {me.group!r}: check --group on both"
            )
        if hello.proves != (me.secret is not None):
            has, lacks = (them, me.name) if hello.proves else (me.name, them)
            raise PeerProtocolError(
                f"{has} was given a group secret and {lacks} was not: give --secret-file to all or to none"
            )
        if hello.epoch == me.epoch and (hello.members_digest != self._digest or hello.replicas != me.replicas):
            raise PeerProtocolError(
                f"{them} and {me.name} were given different members: {self._both_lists(hello, them)}"
            )

    def validate(self, hello: Hello) -> ReplicaId:
        """The peer that sent this Hello. Raises PeerProtocolError with the reason if it is not accepted."""
        self.check_group(hello)
        me, them = self.me, printable(hello.name, 64)
        if hello.nonce in self.own_nonces:
            raise PeerProtocolError(f"this is {me.name} itself: correct the address that is its own in its --peers")
        peer = ReplicaId(hello.replica)
        if peer == me.replica and hello.epoch == me.epoch:
            raise PeerProtocolError(f"two replicas were started as {me.name}: give each its own --name")
        if peer not in self.peers:
            raise PeerProtocolError(f"replica {peer} ({them}) is none of the peers of {me.name}: check --peers on both")
        if hello.epoch == me.epoch and hello.name != me.name_of(peer):
            raise PeerProtocolError(f"its name is {them}, and member {peer} is {me.name_of(peer)}: it is no replica")
        return peer

    def _both_lists(self, hello: Hello, them: str) -> str:
        me = self.me
        theirs, ours = shown(hello.members, hello.replicas), shown(self._members, me.replicas)
        return f"{them} has {theirs}; {me.name} has {ours}; {_GIVE_THE_SAME}"

    def admit(self, peer: ReplicaId, mark: int) -> None:
        """Raises PeerProtocolError if the peer has other data than those with which it took part before."""
        reason = self._admit(peer, mark)
        if reason is not None:
            raise PeerProtocolError(reason)

    def check_proof(self, peer: ReplicaId, proof: bytes, role: bytes, *messages: bytes) -> None:
        """Raises PeerProtocolError unless the peer has proved that it has the secret, if the group has one."""
        secret = self.me.secret
        if secret is not None and not secret.accepts(proof, role, *messages):
            them, us = self.me.name_of(peer), self.me.name
            raise PeerProtocolError(f"{them} and {us} have different group secrets: give the same --secret-file to all")

    def prove(self, role: bytes, *messages: bytes) -> bytes:
        """The proof of this replica over these messages; empty without a secret."""
        return b"" if self.me.secret is None else self.me.secret.proof(role, *messages)

    def note_fingerprint(self, peer: ReplicaId, mark: int) -> None:
        """Store the fingerprint of an accepted peer. Before it has taken part, two replicas may use its name."""
        before = self.fingerprints.get(peer, mark)
        if before != mark:
            text = "%s connects with other data (fingerprint %016x) than before (%016x): do two replicas have its name?"
            self._log_limiter.warning(peer, text, self.me.name_of(peer), mark, before)
        self.fingerprints[peer] = mark

    def note_epoch(self, peer: ReplicaId, epoch: Epoch) -> None:
        """Store the epoch that a peer stated."""
        if epoch not in (self.me.epoch, self.epochs.get(peer)):
            log.warning("%s is in epoch %d, this replica in %d", self.me.name_of(peer), epoch, self.me.epoch)
        self.epochs[peer] = epoch


def _unproven(message: Claim | Confirmation | Refusal) -> bytes:
    """The payload over which the proof of a message is made: the message with an empty proof."""
    return handshake_payload(msgspec.structs.replace(message, proof=b""))


CertificateCheck = Callable[[ReplicaId], str | None]
"""Why the certificate of this connection is not the peer's; None if it is, or if there is no certificate."""


class IncomingHandshake:
    """The side that was dialled. `answer` takes each received payload and returns what to send."""

    def __init__(self, validator: HandshakeValidator, check_certificate: CertificateCheck = lambda peer: None) -> None:
        self.peer: ReplicaId | None = None
        """The peer that dialled; None until it is accepted."""
        self._validator = validator
        self._check_certificate = check_certificate
        self._claimed: ReplicaId | None = None
        self._epoch = Epoch(0)
        self._transcript: tuple[bytes, ...] = ()
        self._proven: tuple[bytes, ...] = ()
        """Both Hellos and the Claim, once that is proven."""

    def answer(self, payload: bytes) -> bytes:
        """Returns what to send. Raises PeerProtocolError with the reason to refuse the dialling side."""
        validator, message = self._validator, self._validator.decode(payload)
        if self._claimed is None:
            if not isinstance(message, Hello):
                raise PeerProtocolError("it does not begin with a Hello")
            return self._answer_hello(message, payload)
        if not isinstance(message, Claim) or self.peer is not None:
            raise PeerProtocolError("it sends an unexpected handshake message")
        peer = self._claimed
        validator.check_proof(peer, message.proof, _CLAIM, *self._transcript, _unproven(message))
        self._proven = (*self._transcript, payload)
        mark = fingerprint(message.incarnation)
        validator.admit(peer, mark)
        validator.check_start(peer, mark, message.start)
        validator.note_epoch(peer, self._epoch)
        validator.note_fingerprint(peer, mark)
        self.peer = peer
        confirmation = Confirmation(fingerprint(validator.me.incarnation), validator.start_info(peer))
        proof = validator.prove(_CONFIRMATION, *self._transcript, payload, _unproven(confirmation))
        return encode_handshake(msgspec.structs.replace(confirmation, proof=proof))

    def _answer_hello(self, hello: Hello, payload: bytes) -> bytes:
        peer = ReplicaId(hello.replica)
        if peer in self._validator.peers:
            reason = self._check_certificate(peer)  # before anything is sent, so that an impostor receives nothing
            if reason is not None:
                raise PeerProtocolError(reason)
        self._claimed = self._validator.validate(hello)
        self._epoch = Epoch(hello.epoch)
        own = self._validator.hello()
        self._transcript = (payload, handshake_payload(own))
        return PREAMBLE + encode_handshake(own)

    def refusal(self, fault: PeerProtocolError) -> bytes:
        """The last message on a connection, at any step of the handshake."""
        message = Refusal(printable(str(fault), REASON_CHARACTERS_MAX))
        if isinstance(fault, OlderStart) and self._proven:
            message = msgspec.structs.replace(message, remembered=fault.report)
            proof = self._validator.prove(_REFUSAL, *self._proven, _unproven(message))
            message = msgspec.structs.replace(message, proof=proof)
        return encode_handshake(message) if self._transcript else PREAMBLE + encode_handshake(message)


class OutgoingHandshake:
    """The side that dialled `expected` at `address`. Send `hello`; `answer` takes each payload and returns the next."""

    def __init__(self, validator: HandshakeValidator, expected: ReplicaId, address: object) -> None:
        self.peer: ReplicaId | None = None
        """The peer that answered; None until the handshake is complete."""
        self._validator = validator
        self._expected = expected
        self._address = address
        self._hello = validator.hello()
        self._transcript: tuple[bytes, ...] = ()
        self._epoch = Epoch(0)
        validator.own_nonces.add(self._hello.nonce)

    def hello(self) -> bytes:
        """The first message to send."""
        return PREAMBLE + encode_handshake(self._hello)

    def answer(self, payload: bytes) -> bytes:
        """Returns what to send, possibly nothing. Raises PeerProtocolError with the reason to close the connection."""
        validator, expected = self._validator, self._expected
        self._note_report_of_refusal(payload)
        message = validator.decode(payload)
        if self.peer is not None:
            raise PeerProtocolError("it sends an unexpected handshake message")
        if not self._transcript:
            if not isinstance(message, Hello):
                raise PeerProtocolError("it does not begin with a Hello")
            return self._claim(message, payload)
        if not isinstance(message, Confirmation):
            raise PeerProtocolError("it sends an unexpected handshake message")
        validator.check_proof(expected, message.proof, _CONFIRMATION, *self._transcript, _unproven(message))
        validator.admit(expected, message.fingerprint)
        validator.check_start(expected, message.fingerprint, message.start)
        validator.note_peer_report(message.start.remembered)
        validator.note_epoch(expected, self._epoch)
        self.peer = expected
        return b""

    @property
    def claim_sent(self) -> bool:
        """Whether the Claim was sent: the other end takes what follows for messages, if it accepts the Claim."""
        return bool(self._transcript)

    def _note_report_of_refusal(self, payload: bytes) -> None:
        """Check the report in a Refusal. It can stop this replica, so it is used only with a valid proof."""
        message = decode_handshake(payload)
        if isinstance(message, Refusal) and message.remembered is not None and self._transcript:
            self._validator.check_proof(self._expected, message.proof, _REFUSAL, *self._transcript, _unproven(message))
            self._validator.note_peer_report(message.remembered)

    def _claim(self, hello: Hello, payload: bytes) -> bytes:
        validator, me = self._validator, self._validator.me
        validator.check_group(hello)
        if hello.replica != self._expected:
            expected, other = me.name_of(self._expected), me.name_of(ReplicaId(hello.replica))
            raise PeerProtocolError(
                f"{other} answers at {self._address}, where {expected} should be: correct the address of "
                f"{expected} in --peers of {me.name}, or start {expected} there"
            )
        self._epoch = Epoch(hello.epoch)
        hellos = (handshake_payload(self._hello), payload)
        claim = Claim(me.incarnation, validator.start_info(None))
        claim = msgspec.structs.replace(claim, proof=validator.prove(_CLAIM, *hellos, _unproven(claim)))
        self._transcript = (*hellos, handshake_payload(claim))
        return encode_handshake(claim)

    def end(self) -> None:
        """Call when the handshake has ended, completed or not."""
        self._validator.own_nonces.discard(self._hello.nonce)


def refusal(fault: PeerProtocolError) -> bytes:
    """The last message on a connection, without the preamble."""
    return encode_handshake(Refusal(printable(str(fault), REASON_CHARACTERS_MAX)))
