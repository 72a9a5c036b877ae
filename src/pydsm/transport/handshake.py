"""What replicas say of themselves when they meet, and who is let in: the same rules on every transport.

Guards that only members of this group are listened to: those that were given the same members as this replica, know the
group's secret where there is one, and have the data that the group knows. A peer in another epoch is let in: its
messages are how a replica learns that it has missed a change of members, so refusing it would cut off the one that is
behind (PROTOCOL 8). Its epoch is kept for whoever wants to know. Groups of different epochs may differ in their
members; of one epoch, they may not.

    the side that dialled                     the side that was dialled
    Hello: members, 32 random bytes    ->
                                       <-     Hello: members, 32 random bytes
    Claim: incarnation, proof          ->
                                       <-     Confirmation: fingerprint, proof

The side that dialled proves first, so that a stranger learns nothing from dialling but the names and addresses of the
members. Knows bytes, and nothing of connections.
"""

import logging
import secrets
from collections.abc import Callable, Collection

import msgspec

from pydsm.core.protocol.starts import Remembered, StartGreeting
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
    Greeting,
    Hello,
    Refusal,
    Stamp,
    decode_greeting,
    encode_greeting,
    greeting_payload,
)
from pydsm.transport.members import digest, shown, to_send

log = logging.getLogger("pydsm.transport")

REASON_CHARACTERS_MAX = 2000
_CLAIM, _CONFIRMATION, _REFUSAL = b"dialled", b"was dialled", b"refuses"
_GIVE_THE_SAME = "give --peers the same names in the same order everywhere"


class RefusedByPeer(PeerProtocolError):
    """The other end has said why it closes the connection; there is nothing to answer."""


class OlderStart(PeerProtocolError):
    """A start of a peer that lacks something which is remembered of it."""

    def __init__(self, reason: str, remembered: Remembered) -> None:
        super().__init__(reason)
        self.remembered = remembered


class HandshakeValidator:
    """Greets, and judges greetings.

    `peers` are the others; `admit` decides about incarnations, `starts` about starts.
    """

    def __init__(self, me: LocalIdentity, peers: Collection[ReplicaId], admit: Admit, starts: StartExchange) -> None:
        self.epochs: dict[ReplicaId, Epoch] = {}
        """See `transport.base.Transport`."""
        self.fingerprints: dict[ReplicaId, int] = {}
        """See `transport.base.Transport`."""
        self.me = me
        self.peers = frozenset(peers)
        self.own_nonces: set[bytes] = set()
        """Of connections that this replica is dialling: who greets with one of them is this replica itself."""
        self._admit = admit
        self._complaints = LogLimiter(log)
        self._starts = starts
        self._digest = digest(me.listed)
        self._members = to_send(me.listed)

    def hello(self) -> Hello:
        """The first thing to say on a connection."""
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
        """What a frame of messages that leaves now begins with."""
        return Stamp(*self._starts.stamp)

    def heard(self, peer: ReplicaId, stamp: Stamp) -> None:
        """A frame of messages has come.

        Raises PeerProtocolError when it is of a start that is not listened to any more.
        """
        reason = self._starts.hear(peer, stamp.start, stamp.position)
        if reason is not None:
            raise OlderStart(reason, self._starts.remembered(peer))

    def start_greeting(self, to: ReplicaId | None) -> StartGreeting:
        """What to say of our start; `to` is a peer that has said who it is, and is told what is remembered of it."""
        return self._starts.greeting(to)

    def judge_start(self, peer: ReplicaId, mark: int, greeting: StartGreeting) -> None:
        """Raises OlderStart for a start that lacks what is remembered of the peer; `mark` tells which data it has."""
        reason = self._starts.why_not(peer, mark, greeting)
        if reason is not None:
            raise OlderStart(reason, self._starts.remembered(peer))

    def note_remembered(self, remembered: Remembered | None) -> None:
        """A peer tells what it remembers of this replica. One of another group, or epoch, speaks of other instances."""
        if remembered is None:
            return
        if remembered.by in self.peers and len(remembered.executed) == self.me.replicas:
            self._starts.told(remembered)

    def decode(self, payload: bytes) -> Greeting:
        """The greeting in a frame. Raises PeerProtocolError for anything else, and for a Refusal, with its reason."""
        greeting = decode_greeting(payload)
        if isinstance(greeting, Refusal):
            raise RefusedByPeer(f"it refuses us: {printable(greeting.reason, REASON_CHARACTERS_MAX)}")
        return greeting

    def judge_group(self, hello: Hello) -> None:
        """Raises PeerProtocolError unless whoever greets was started for the same group with the same members."""
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

    def judge(self, hello: Hello) -> ReplicaId:
        """The peer that this greeting is from. Raises PeerProtocolError with the reason when it may not talk to us."""
        self.judge_group(hello)
        me, them = self.me, printable(hello.name, 64)
        if hello.nonce in self.own_nonces:
            raise PeerProtocolError(f"this is {me.name} itself: correct the address that leads here in its --peers")
        peer = ReplicaId(hello.replica)
        if peer == me.replica and hello.epoch == me.epoch:
            raise PeerProtocolError(f"two replicas were started as {me.name}: give each its own --name")
        if peer not in self.peers:
            raise PeerProtocolError(f"replica {peer} ({them}) is none of the peers of {me.name}: check --peers on both")
        if hello.epoch == me.epoch and hello.name != me.name_of(peer):
            raise PeerProtocolError(f"it calls itself {them}, and member {peer} is {me.name_of(peer)}: it is no PyDSM")
        return peer

    def _both_lists(self, hello: Hello, them: str) -> str:
        me = self.me
        theirs, ours = shown(hello.members, hello.replicas), shown(self._members, me.replicas)
        return f"{them} has {theirs}; {me.name} has {ours}; {_GIVE_THE_SAME}"

    def admit(self, peer: ReplicaId, mark: int) -> None:
        """Raises PeerProtocolError when the peer has other data than this replica knows of it."""
        reason = self._admit(peer, mark)
        if reason is not None:
            raise PeerProtocolError(reason)

    def check_proof(self, peer: ReplicaId, proof: bytes, role: bytes, *said: bytes) -> None:
        """Raises PeerProtocolError unless the peer knows the secret, where there is one."""
        secret = self.me.secret
        if secret is not None and not secret.accepts(proof, role, *said):
            them, us = self.me.name_of(peer), self.me.name
            raise PeerProtocolError(f"{them} and {us} have different group secrets: give the same --secret-file to all")

    def prove(self, role: bytes, *said: bytes) -> bytes:
        """Our own proof; empty without a secret."""
        return b"" if self.me.secret is None else self.me.secret.proof(role, *said)

    def note_fingerprint(self, peer: ReplicaId, mark: int) -> None:
        """With which data a peer was let in. Before it has taken part, two replicas may claim to be it."""
        before = self.fingerprints.get(peer, mark)
        if before != mark:
            text = "%s greets with other data (fingerprint %016x) than before (%016x): do two replicas have its name?"
            self._complaints.warning(peer, text, self.me.name_of(peer), mark, before)
        self.fingerprints[peer] = mark

    def note_epoch(self, peer: ReplicaId, epoch: Epoch) -> None:
        """What epoch a peer said that it is in."""
        if epoch not in (self.me.epoch, self.epochs.get(peer)):
            log.warning("%s is in epoch %d, we are in %d", self.me.name_of(peer), epoch, self.me.epoch)
        self.epochs[peer] = epoch


def _unproven(said: Claim | Confirmation | Refusal) -> bytes:
    """Everything in it that a proof is made over: all but the proof."""
    return greeting_payload(msgspec.structs.replace(said, proof=b""))


Vouched = Callable[[ReplicaId], str | None]
"""Why the other end of this connection cannot be this peer, or None when it may be: what a certificate says."""


class IncomingHandshake:
    """The side that was dialled. Give it each payload; it gives what to answer."""

    def __init__(self, keeper: HandshakeValidator, vouched: Vouched = lambda peer: None) -> None:
        self.peer: ReplicaId | None = None
        """Who dialled; None until it is let in."""
        self._keeper = keeper
        self._vouched = vouched
        self._claimed: ReplicaId | None = None
        self._epoch = Epoch(0)
        self._said: tuple[bytes, ...] = ()
        self._proven: tuple[bytes, ...] = ()
        """Both Hellos and the Claim, once that is proven."""

    def answer(self, payload: bytes) -> bytes:
        """What to send. Raises PeerProtocolError with the reason to refuse whoever dialled."""
        keeper, greeting = self._keeper, self._keeper.decode(payload)
        if self._claimed is None:
            if not isinstance(greeting, Hello):
                raise PeerProtocolError("it does not begin with a Hello")
            return self._greet(greeting, payload)
        if not isinstance(greeting, Claim) or self.peer is not None:
            raise PeerProtocolError("it greets twice")
        peer = self._claimed
        keeper.check_proof(peer, greeting.proof, _CLAIM, *self._said, _unproven(greeting))
        self._proven = (*self._said, payload)
        mark = fingerprint(greeting.incarnation)
        keeper.admit(peer, mark)
        keeper.judge_start(peer, mark, greeting.start)
        keeper.note_epoch(peer, self._epoch)
        keeper.note_fingerprint(peer, mark)
        self.peer = peer
        confirmation = Confirmation(fingerprint(keeper.me.incarnation), keeper.start_greeting(peer))
        proof = keeper.prove(_CONFIRMATION, *self._said, payload, _unproven(confirmation))
        return encode_greeting(msgspec.structs.replace(confirmation, proof=proof))

    def _greet(self, hello: Hello, payload: bytes) -> bytes:
        peer = ReplicaId(hello.replica)
        if peer in self._keeper.peers:
            reason = self._vouched(peer)  # before anything else is said: an impostor learns nothing
            if reason is not None:
                raise PeerProtocolError(reason)
        self._claimed = self._keeper.judge(hello)
        self._epoch = Epoch(hello.epoch)
        own = self._keeper.hello()
        self._said = (payload, greeting_payload(own))
        return PREAMBLE + encode_greeting(own)

    def refusal(self, fault: PeerProtocolError) -> bytes:
        """The last thing to say, whatever was said before."""
        said = Refusal(printable(str(fault), REASON_CHARACTERS_MAX))
        if isinstance(fault, OlderStart) and self._proven:
            said = msgspec.structs.replace(said, remembered=fault.remembered)
            proof = self._keeper.prove(_REFUSAL, *self._proven, _unproven(said))
            said = msgspec.structs.replace(said, proof=proof)
        return encode_greeting(said) if self._said else PREAMBLE + encode_greeting(said)


class OutgoingHandshake:
    """The side that dialled `expected` at `address`. Send `hello`; give it each payload; it gives what to answer."""

    def __init__(self, keeper: HandshakeValidator, expected: ReplicaId, address: object) -> None:
        self.peer: ReplicaId | None = None
        """Who answered; None until it is the one that was dialled, and lets us in."""
        self._keeper = keeper
        self._expected = expected
        self._address = address
        self._hello = keeper.hello()
        self._said: tuple[bytes, ...] = ()
        self._epoch = Epoch(0)
        keeper.own_nonces.add(self._hello.nonce)

    def hello(self) -> bytes:
        """The first thing to send."""
        return PREAMBLE + encode_greeting(self._hello)

    def answer(self, payload: bytes) -> bytes:
        """What to send, possibly nothing. Raises PeerProtocolError with the reason to close the connection."""
        keeper, expected = self._keeper, self._expected
        self._note_remembered(payload)
        greeting = keeper.decode(payload)
        if self.peer is not None:
            raise PeerProtocolError("it greets twice")
        if not self._said:
            if not isinstance(greeting, Hello):
                raise PeerProtocolError("it does not begin with a Hello")
            return self._claim(greeting, payload)
        if not isinstance(greeting, Confirmation):
            raise PeerProtocolError("it greets twice")
        keeper.check_proof(expected, greeting.proof, _CONFIRMATION, *self._said, _unproven(greeting))
        keeper.admit(expected, greeting.fingerprint)
        keeper.judge_start(expected, greeting.fingerprint, greeting.start)
        keeper.note_remembered(greeting.start.remembered)
        keeper.note_epoch(expected, self._epoch)
        self.peer = expected
        return b""

    @property
    def has_claimed(self) -> bool:
        """Whether the other end takes what comes next for messages, if it lets us in."""
        return bool(self._said)

    def _note_remembered(self, payload: bytes) -> None:
        """What a refusal says that is remembered of us can stop this replica, so it is believed with its proof only."""
        greeting = decode_greeting(payload)
        if isinstance(greeting, Refusal) and greeting.remembered is not None and self._said:
            self._keeper.check_proof(self._expected, greeting.proof, _REFUSAL, *self._said, _unproven(greeting))
            self._keeper.note_remembered(greeting.remembered)

    def _claim(self, hello: Hello, payload: bytes) -> bytes:
        keeper, me = self._keeper, self._keeper.me
        keeper.judge_group(hello)
        if hello.replica != self._expected:
            expected, other = me.name_of(self._expected), me.name_of(ReplicaId(hello.replica))
            raise PeerProtocolError(
                f"{other} answers at {self._address}, where {expected} should be: correct the address of "
                f"{expected} in --peers of {me.name}, or what listens there"
            )
        self._epoch = Epoch(hello.epoch)
        hellos = (greeting_payload(self._hello), payload)
        claim = Claim(me.incarnation, keeper.start_greeting(None))
        claim = msgspec.structs.replace(claim, proof=keeper.prove(_CLAIM, *hellos, _unproven(claim)))
        self._said = (*hellos, greeting_payload(claim))
        return encode_greeting(claim)

    def end(self) -> None:
        """The connection is over, or greeted."""
        self._keeper.own_nonces.discard(self._hello.nonce)


def refusal(fault: PeerProtocolError) -> bytes:
    """The last thing to say on a connection, without the preamble."""
    return encode_greeting(Refusal(printable(str(fault), REASON_CHARACTERS_MAX)))
