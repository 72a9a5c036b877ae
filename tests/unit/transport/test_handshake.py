"""Which peers are accepted: proofs that cannot be reused, and what an unauthenticated peer receives."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from pydsm.core.types.errors import PeerProtocolError
from pydsm.core.types.fingerprint import fingerprint
from pydsm.core.types.ids import ReplicaId
from pydsm.transport.base import LocalIdentity
from pydsm.transport.frames import (
    PREAMBLE,
    Claim,
    Confirmation,
    HandshakeMessage,
    Hello,
    Refusal,
    decode_handshake,
    encode_handshake,
    handshake_payload,
    open_frame,
    open_handshake,
)
from pydsm.transport.handshake import HandshakeValidator, IncomingHandshake, OutgoingHandshake
from pydsm.transport.members import Member
from tests.unit.transport.groups import START, admit_all, who
from tests.unit.transport.starts import PlainStarts

SECRET = b"a secret of this group, long enough"
INCARNATION = 0xFEDC_BA98_7654_3210


def keeper(me: LocalIdentity) -> HandshakeValidator:
    """A replica that admits every member."""
    peers = [ReplicaId(peer) for peer in range(me.replicas) if peer != me.replica]
    return HandshakeValidator(me, peers, admit_all, PlainStarts(me.replica, me.replicas))


def first(data: bytes) -> bytes:
    """The payload of the first message in a direction."""
    return open_handshake(data)


Change = Callable[[HandshakeMessage], HandshakeMessage]


def unchanged(greeting: HandshakeMessage) -> HandshakeMessage:
    """Passes messages on unchanged."""
    return greeting


class Pair:
    """r2 dials r1; an attacker between them may change the messages."""

    def __init__(
        self, dialler: LocalIdentity | None = None, dialled: LocalIdentity | None = None, change: Change = unchanged
    ) -> None:
        self.dialler = keeper(dialler or who(1, secret=SECRET))
        self.dialled = keeper(dialled or who(0, secret=SECRET))
        self.outgoing = OutgoingHandshake(self.dialler, ReplicaId(0), "10.0.0.1:7000")
        self.incoming = IncomingHandshake(self.dialled)
        self.said: list[bytes] = []
        self._change = change

    def pass_on(self, payload: bytes) -> bytes:
        """The message that arrives."""
        arrives = handshake_payload(self._change(decode_handshake(payload)))
        self.said.append(arrives)
        return arrives

    def run(self) -> None:
        """Do the whole handshake; raises the error with which one side refuses the other."""
        hello = first(self.incoming.answer(self.pass_on(first(self.outgoing.hello()))))
        claim = open_frame(self.outgoing.answer(self.pass_on(hello)))
        confirmation = open_frame(self.incoming.answer(self.pass_on(claim)))
        assert self.outgoing.answer(self.pass_on(confirmation)) == b""


def test_both_sides_have_the_peer_after_the_handshake() -> None:
    pair = Pair()
    pair.run()
    assert (pair.incoming.peer, pair.outgoing.peer) == (1, 0)
    assert pair.dialled.fingerprints == {1: fingerprint(7)}


def test_two_replicas_with_one_name_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    dialled = keeper(who(0))
    for incarnation in (7, 7, 8):
        incoming = IncomingHandshake(dialled)
        incoming.answer(first(PREAMBLE + encode_handshake(keeper(who(1)).hello())))
        incoming.answer(handshake_payload(Claim(incarnation, START)))
    said = f"r2 connects with other data (fingerprint {fingerprint(8):016x}) than before ({fingerprint(7):016x})"
    assert [message.startswith(said) for message in caplog.messages] == [True]


def test_the_handshake_does_not_contain_the_secret() -> None:
    pair = Pair()
    pair.run()
    assert len(pair.said) == 4
    assert all(SECRET not in said for said in pair.said)


def only(kind: type, **changes: object) -> Change:
    """Changes fields of one kind of handshake message."""
    return lambda greeting: replace(greeting, **changes) if isinstance(greeting, kind) else greeting


@pytest.mark.parametrize(
    "change",
    [
        only(Claim, proof=b""),
        only(Claim, proof=bytes(32)),
        only(Claim, incarnation=8),
        only(Confirmation, proof=b""),
        only(Confirmation, fingerprint=8),
        only(Hello, nonce=bytes(32)),
        only(Hello, epoch=3),
        only(Hello, members=(Member("r9"),)),
    ],
)
def test_any_change_of_a_handshake_message_invalidates_the_proof(change: Change) -> None:
    with pytest.raises(PeerProtocolError, match="have different group secrets: give the same --secret-file to all"):
        Pair(change=change).run()


def test_proof_of_an_earlier_connection_is_worth_nothing() -> None:
    earlier = Pair()
    earlier.run()
    hello, _, claim, _ = earlier.said
    again = IncomingHandshake(earlier.dialled)
    again.answer(hello)
    with pytest.raises(PeerProtocolError, match="have different group secrets"):
        again.answer(claim)
    assert again.peer is None


def test_proof_is_worth_nothing_in_the_other_direction() -> None:
    """An attacker without the secret dials r1 as r2, and lets r1 make the proof on a connection that r1 dials."""
    r1 = keeper(who(0, secret=SECRET))
    dialled = IncomingHandshake(r1)
    outgoing = OutgoingHandshake(r1, ReplicaId(1), "10.0.0.2:7000")
    own = decode_handshake(first(outgoing.hello()))
    assert isinstance(own, Hello)
    as_r2 = replace(own, replica=1, name="r2")
    answer = decode_handshake(first(dialled.answer(handshake_payload(replace(as_r2, nonce=bytes(32))))))
    assert isinstance(answer, Hello)
    reflected = open_frame(outgoing.answer(handshake_payload(replace(as_r2, nonce=answer.nonce))))
    with pytest.raises(PeerProtocolError, match="have different group secrets"):
        dialled.answer(reflected)


def test_proof_of_the_side_that_dialled_does_not_serve_the_side_that_was_dialled() -> None:
    pair = Pair()
    hello = first(pair.incoming.answer(first(pair.outgoing.hello())))
    claim = decode_handshake(open_frame(pair.outgoing.answer(hello)))
    assert isinstance(claim, Claim)
    with pytest.raises(PeerProtocolError, match="have different group secrets"):
        pair.outgoing.answer(handshake_payload(Confirmation(fingerprint(7), START, claim.proof)))


def test_an_unauthenticated_peer_does_not_receive_the_incarnation() -> None:
    dialled = keeper(who(0, incarnation=INCARNATION))
    incoming = IncomingHandshake(dialled)
    said = incoming.answer(first(PREAMBLE + encode_handshake(keeper(who(1)).hello())))
    said += incoming.answer(handshake_payload(Claim(7, START)))
    assert incoming.peer == 1
    assert INCARNATION.to_bytes(8, "big") not in said
    assert fingerprint(INCARNATION).to_bytes(8, "big") in said
    assert str(INCARNATION) not in repr(dialled.me)
    assert f"{INCARNATION:x}" not in repr(dialled.me)


def test_a_peer_without_a_proof_does_not_receive_the_fingerprint() -> None:
    incoming = IncomingHandshake(keeper(who(0, incarnation=INCARNATION, secret=SECRET)))
    said = incoming.answer(first(PREAMBLE + encode_handshake(keeper(who(1, secret=bytes(16))).hello())))
    with pytest.raises(PeerProtocolError) as caught:
        incoming.answer(handshake_payload(Claim(7, START, bytes(32))))
    said += incoming.refusal(caught.value)
    assert fingerprint(INCARNATION).to_bytes(8, "big") not in said


@pytest.mark.parametrize(
    "said",
    [Claim(1, START), Confirmation(1, START)],
)
def test_greetings_have_an_order(said: HandshakeMessage) -> None:
    pair = Pair()
    for side in (pair.incoming, pair.outgoing):
        with pytest.raises(PeerProtocolError, match="it does not begin with a Hello"):
            side.answer(handshake_payload(said))


def test_reason_of_a_refusal_is_shown_without_control_characters_and_is_bounded() -> None:
    pair = Pair()
    with pytest.raises(PeerProtocolError) as caught:
        pair.outgoing.answer(handshake_payload(Refusal("\x1b[2J\n" + "x" * 10_000)))
    assert str(caught.value).startswith("it refuses us: \\x1b[2J\\x0axxx")
    assert len(str(caught.value)) < 2100


def test_dialling_itself_and_a_duplicate_name_have_different_reasons() -> None:
    r1 = keeper(who(0))
    outgoing = OutgoingHandshake(r1, ReplicaId(1), "10.0.0.2:7000")
    with pytest.raises(PeerProtocolError, match="this is r1 itself"):
        IncomingHandshake(r1).answer(first(outgoing.hello()))
    outgoing.end()
    with pytest.raises(PeerProtocolError, match="two replicas were started as r1"):
        IncomingHandshake(r1).answer(first(outgoing.hello()))
