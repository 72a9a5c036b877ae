"""The native client: results, outcomes of failures, and the choice of the replica."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest

from pydsm.client import (
    BlockingClient,
    CallOutcome,
    Client,
    ClientClosed,
    ClientLimits,
    CommandAborted,
    NoReplicaReachable,
    OutcomeUnknown,
    ReplicaOverloaded,
)
from pydsm.client import RequestExpiredError as GoneRequest
from pydsm.client import SessionExpiredError as GoneSession
from pydsm.client import client as client_module
from pydsm.client_protocol import answers
from pydsm.client_protocol.messages import CLIENT_PREAMBLE, ClientAnswers, Welcome, encode_message
from pydsm.core.sessions.session_limits import SessionExpired
from pydsm.core.sessions.session_window import RequestExpired
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId, request_at, request_id
from pydsm.machines.base import CommandFailed
from pydsm.machines.kv import encode
from pydsm.server.native import NativeServer
from pydsm.storage.identity import Identity
from pydsm.transport.address import Address
from tests.unit.server.local import LocalAgreement, make_host
from tests.waiting import eventually

QUICK = ClientLimits(timeout_seconds=5, rediscovery_interval_seconds=0.05, silence_seconds_max=0.2)
GRANT = request_id(1, ReplicaId(2), 3, 0)
NOBODY = Address("127.0.0.1", 1)


class Replica:
    """A port for native clients in front of a machine of its own."""

    def __init__(self, number: int) -> None:
        self.agreement = LocalAgreement()
        self.ready = True
        identity = Identity("shop", f"r{number + 1}", ReplicaId(number), 3)
        self.server = NativeServer(self.agreement.submit_requests, make_host(identity, lambda: self.ready))
        self._address: Address | None = None

    @property
    def address(self) -> Address:
        if self._address is None:
            self._address = Address("127.0.0.1", self.server.port)
        return self._address

    async def start(self) -> None:
        """Also again, at the same address."""
        await self.server.start(self._address or Address("127.0.0.1", 0))
        assert self.address

    async def die(self) -> None:
        """Without a word, with everything unanswered."""
        for connection in self.server.registry.connections():
            connection.abort()
        await self.server.stop()


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[list[Replica]]:
    made = [Replica(number) for number in range(count)]
    async with AsyncExitStack() as stack:
        for replica in made:
            await replica.start()
            stack.push_async_callback(replica.server.stop)
        yield made


def command(line: str) -> bytes:
    return encode([word.encode() for word in line.split()])


async def test_a_command_returns_its_result_and_raises_a_failure() -> None:
    async with replicas(1) as (one,), Client([str(one.address)]) as client:
        assert await client.execute(command("SET a 1")) == "OK"
        assert await client.execute(command("INCR a")) == 2
        with pytest.raises(CommandFailed, match="WRONGTYPE"):
            await client.execute(command("LPUSH a x"))


async def test_many_commands_return_their_outcomes_in_order() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        outcomes = await client.execute_many([command("SET a 1"), command("LPUSH a x"), command("GET a"), b"\xff"])
        assert outcomes[0] == "OK"
        assert isinstance(outcomes[1], CommandFailed)
        assert outcomes[2] == b"1"
        assert isinstance(outcomes[3], CommandFailed)
        assert await client.execute_many([]) == []


async def test_commands_of_one_turn_are_sent_together_and_many_are_in_flight() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        one.agreement.holding = True
        asked = [asyncio.ensure_future(client.execute(command("INCR a"))) for _ in range(100)]
        await eventually(lambda: len(one.agreement.waiting) == 100, "all commands arrive")
        assert client.in_flight == 100
        one.agreement.release()
        assert sorted(await asyncio.gather(*asked), key=str) == sorted(range(1, 101), key=str)


# Outcomes


async def test_after_a_lost_connection_a_command_is_sent_again_elsewhere_under_its_first_id() -> None:
    async with replicas(2) as (one, other), Client([one.address, other.address], prefer=one.address) as client:
        one.agreement.holding = True
        asked = asyncio.ensure_future(client.execute(command("INCR a")))
        await eventually(lambda: len(one.agreement.waiting) == 1, "the command arrives")
        await one.die()
        assert await asked == 1
        assert await client.execute(command("INCR a")) == 2
        (first, again), (run, repeated), (later, late) = *one.agreement.runs, *other.agreement.runs
        assert (first.first, again) == (run.first, not repeated)
        assert later.first != first.first
        assert not late
        assert client.at == other.address


async def test_commands_with_an_outcome_are_not_sent_again() -> None:
    async with replicas(2) as (one, other), Client([one.address, other.address], prefer=one.address) as client:
        one.agreement.holding = True
        asked = asyncio.ensure_future(client.execute_many([command(f"SET k{place} 1") for place in range(5)]))
        await eventually(lambda: len(one.agreement.waiting) == 5, "the commands arrive")
        for place in (0, 2):
            one.agreement.waiting[place][1]("early")
        await asyncio.sleep(0.05)
        await one.die()
        assert await asked == ["early", "OK", "early", "OK", "OK"]
        (first, _), *again = *one.agreement.runs, *other.agreement.runs
        assert [(run.first, run.count) for run, _ in again] == [
            (request_at(first.first, 1), 1),
            (request_at(first.first, 3), 2),
        ]


async def test_a_silent_replica_does_not_keep_a_command_from_being_executed_elsewhere() -> None:
    async with (
        replicas(2) as (one, other),
        Client([one.address, other.address], prefer=one.address, limits=QUICK) as client,
    ):
        one.agreement.holding = True
        assert await client.execute(command("INCR a")) == 1
        assert [again for _, again in other.agreement.runs] == [True]
        assert client.in_flight == 0


async def test_an_abort_of_a_retry_does_not_make_the_outcome_certain() -> None:
    async with replicas(2) as (one, other), Client([one.address, other.address], prefer=one.address) as client:
        one.agreement.holding = True
        other.agreement.refusal = answers.Aborted("a nop")
        asked = asyncio.ensure_future(client.execute(command("INCR a"), timeout_seconds=1))
        await eventually(lambda: len(one.agreement.waiting) == 1, "the command arrives")
        await one.die()
        with pytest.raises(OutcomeUnknown) as told:
            await asked
        assert told.value.request_id is not None
        assert told.value.request_id.bytes == one.agreement.runs[0][0].first


async def test_answers_are_acknowledged_with_the_next_command() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        await client.execute_many([command("GET a")] * 3)
        await client.execute(command("GET a"))
        assert [run.acknowledged for run, _ in one.agreement.runs] == [1, 4]


async def test_a_first_attempt_whose_session_has_expired_continues_in_another() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        one.agreement.refusal = SessionExpired()
        names: list[UUID] = []
        asked = asyncio.ensure_future(client.execute(command("INCR a"), on_request_id=names.append))
        await eventually(lambda: len(one.agreement.runs) > 1, "it is sent again")
        one.agreement.refusal = None
        assert await asked == 1
        assert len(set(names)) == len(one.agreement.runs)
        assert not any(again for _, again in one.agreement.runs)


async def test_sessions_that_are_refused_repeatedly_begin_after_growing_delays() -> None:
    """A group whose agreed time is wrong may refuse them all: each attempt costs it an instance."""
    async with replicas(1) as (one,), Client([one.address], limits=QUICK) as client:
        one.agreement.refusal = SessionExpired()
        with pytest.raises(CommandAborted, match=r"not executed: .* refused as expired"):
            await client.execute(command("INCR a"), timeout_seconds=3)
        assert 2 <= len(one.agreement.runs) < 30
        assert not any(again for _, again in one.agreement.runs)
        one.agreement.refusal = None
        assert await client.execute(command("INCR a")) == 1


async def test_a_second_refused_session_is_followed_by_another_connection_with_a_grant_of_its_own() -> None:
    async with replicas(1) as (one,), Client([one.address], limits=QUICK) as client:
        one.agreement.refusal = SessionExpired()
        asked = asyncio.ensure_future(client.execute(command("INCR a")))
        await eventually(lambda: len({run.first[8:12] for run, _ in one.agreement.runs}) > 1, "there is another grant")
        one.agreement.refusal = None
        assert await asked == 1


@pytest.mark.parametrize(("told", "kind"), [(SessionExpired(), GoneSession), (RequestExpired(), GoneRequest)])
async def test_a_retry_that_comes_too_late_raises_the_reason(told: answers.Answer, kind: type[Exception]) -> None:
    async with replicas(2) as (one, other), Client([one.address, other.address], prefer=one.address) as client:
        one.agreement.holding = True
        other.agreement.refusal = told
        asked = asyncio.ensure_future(client.execute(command("INCR a")))
        await eventually(lambda: len(one.agreement.waiting) == 1, "the command arrives")
        await one.die()
        with pytest.raises(kind):
            await asked


async def test_refusals_among_results_are_sent_again_alone() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        one.agreement.holding = True
        asked = asyncio.ensure_future(client.execute_many([command("GET a")] * 4))
        await eventually(lambda: len(one.agreement.waiting) == 4, "the commands arrive")
        waiting, one.agreement.waiting = one.agreement.waiting, []
        one.agreement.holding = False
        for place, answer in enumerate(["a", answers.Aborted("nop"), answers.Aborted("nop"), "b"]):
            waiting[place][1](answer)
        assert await asked == ["a", None, None, "b"]
        assert [run.count for run, _ in one.agreement.runs] == [4, 2]


async def test_the_outcome_of_a_sent_command_is_unknown_after_its_timeout() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        one.agreement.holding = True
        with pytest.raises(OutcomeUnknown, match="no answer came in time"):
            await client.execute(command("INCR a"), timeout_seconds=0.1)
        one.agreement.holding = False
        one.agreement.release()  # the late answer disturbs nobody
        assert await client.execute(command("INCR a")) == 2


async def test_a_silent_replica_is_replaced_and_its_late_answers_count() -> None:
    async with (
        replicas(2) as (one, other),
        Client([one.address, other.address], prefer=one.address, limits=QUICK) as client,
    ):
        one.agreement.holding = True
        asked = asyncio.ensure_future(client.execute(command("INCR a")))
        await eventually(lambda: client.at == other.address, "the client moves")
        assert await client.execute(command("INCR b")) == 1
        one.agreement.release()
        assert await asked == 1


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> ClientLimits:
    """Nothing that was refused is sent again before its time is up: what is under way then would be unknown."""
    monkeypatch.setattr(client_module, "_BACKOFF_SECONDS", 60)
    return ClientLimits(backoff_seconds_max=60)


async def test_aborted_commands_are_sent_again_until_their_timeout() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        one.agreement.refusal = answers.Aborted("a nop")
        asked = asyncio.ensure_future(client.execute(command("INCR a")))
        many = asyncio.ensure_future(client.execute_many([command("INCR b")] * 3))
        await eventually(lambda: client.in_flight == 4, "they are under way")
        one.agreement.refusal = None
        assert await asked == 1
        assert sorted(await many, key=str) == [1, 2, 3]
        assert client.in_flight == 0


async def test_commands_aborted_until_their_timeout_have_that_outcome(unhurried: ClientLimits) -> None:
    async with replicas(1) as (one,), Client([one.address], limits=unhurried) as client:
        one.agreement.refusal = answers.Aborted("a nop")
        with pytest.raises(CommandAborted, match="a nop"):
            await client.execute(command("INCR b"), timeout_seconds=1)
        refused = await client.execute_many([command("INCR a")] * 3, timeout_seconds=1)
        assert [type(outcome) for outcome in refused] == [CommandAborted] * 3


async def test_many_commands_are_sent_again_elsewhere() -> None:
    async with replicas(2) as (one, other), Client([one.address, other.address], prefer=one.address) as client:
        one.agreement.holding = True
        asked = asyncio.ensure_future(client.execute_many([command("GET a")] * 3))
        await eventually(lambda: len(one.agreement.waiting) == 3, "the commands arrive")
        await one.die()
        assert await asked == [None] * 3


async def test_more_commands_than_fit_into_a_frame_keep_their_order() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        values = [b"x" * (700_000 if number == 5 else 3) + b"%d" % number for number in range(2500)]
        await client.execute_many([encode([b"SET", b"k%d" % number, value]) for number, value in enumerate(values)])
        assert await client.execute_many([command(f"GET k{number}") for number in range(2500)]) == values


async def test_an_overloaded_replica_is_replaced_by_another() -> None:
    async with replicas(2) as (one, other), Client([one.address, other.address], prefer=one.address) as client:
        one.agreement.refusal = answers.Overloaded("full")
        assert await client.execute(command("INCR a")) == 1
        assert client.at == other.address


async def test_commands_that_no_replica_accepts_have_that_outcome(unhurried: ClientLimits) -> None:
    async with replicas(1) as (one,), Client([one.address], limits=unhurried) as client:
        one.agreement.refusal = answers.Overloaded("full")
        with pytest.raises(ReplicaOverloaded, match="full"):
            await client.execute(command("INCR a"), timeout_seconds=1)


async def test_closing_ends_all_waiting_calls() -> None:
    async with replicas(1) as (one,):
        client = Client([one.address], limits=ClientLimits(in_flight_commands_max=1))
        async with client:
            one.agreement.holding = True
            asked = [asyncio.ensure_future(client.execute(command("INCR a"))) for _ in range(3)]
            await eventually(lambda: len(one.agreement.waiting) == 1, "the first command arrives")
        for result in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(result, ClientClosed)
        with pytest.raises(ClientClosed):
            await client.execute(command("INCR a"))
        await client.close()


async def test_a_cancelled_command_does_not_affect_others() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        one.agreement.holding = True
        first, second = (asyncio.ensure_future(client.execute(command("INCR a"))) for _ in range(2))
        await eventually(lambda: len(one.agreement.waiting) == 2, "both arrive")
        first.cancel()
        one.agreement.release()
        assert await second in {1, 2}
        assert client.in_flight == 0


# Limits


async def test_further_commands_wait_while_too_many_are_in_flight() -> None:
    limits = ClientLimits(in_flight_commands_max=5)
    async with replicas(1) as (one,), Client([one.address], limits=limits) as client:
        one.agreement.holding = True
        asked = [asyncio.ensure_future(client.execute(command("INCR a"))) for _ in range(12)]
        await eventually(lambda: len(one.agreement.waiting) == 5, "the first commands arrive")
        asked[7].cancel()
        one.agreement.holding = False
        one.agreement.release()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(result for result in results if isinstance(result, int)) == list(range(1, 12))
        assert await client.execute_many([command("INCR a")] * 20) == list(range(12, 32))


@pytest.mark.parametrize("name", ["timeout_seconds", "in_flight_commands_max", "silence_seconds_max"])
def test_an_invalid_limit_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be above 0"):
        ClientLimits(**{name: 0})


@pytest.mark.parametrize(
    ("addresses", "prefer", "text"),
    [([], None, "at least one"), (["nowhere"], None, "HOST:PORT"), (["h:1"], "h:2", "not among the addresses")],
)
def test_invalid_addresses_are_usage_errors(addresses: list[str], prefer: str | None, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Client(addresses, prefer=prefer)


# Which replica


async def test_the_error_without_a_replica_names_each_address_with_its_reason() -> None:
    limits = ClientLimits(timeout_seconds=0.2)
    async with replicas(1) as (one,):
        with pytest.raises(NoReplicaReachable, match=r"127\.0\.0\.1:1: .*[Cc]onnect"):
            await Client([NOBODY], limits=limits).__aenter__()
        with pytest.raises(NoReplicaReachable, match="it asks for group 'other', this is 'shop'"):
            await Client([one.address], group="other", limits=limits).__aenter__()


async def test_a_command_that_was_never_sent_has_that_outcome() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        await one.die()
        await eventually(lambda: client.at is None, "the client notices")
        with pytest.raises(NoReplicaReachable, match="nothing was sent"):
            await client.execute(command("INCR a"), timeout_seconds=0.1)
        asked = asyncio.ensure_future(client.execute(command("INCR a")))
        await one.start()
        assert await asked == 1  # it waited for the replica to come back


async def test_a_replica_that_is_not_ready_is_only_used_when_no_other_is() -> None:
    async with replicas(2) as (one, other):
        one.ready = False
        async with Client([one.address, other.address], prefer=one.address) as client:
            assert client.at == other.address
        async with Client([one.address]) as client:
            assert client.at == one.address


async def test_the_preferred_replica_is_used_again_when_it_is_back() -> None:
    limits = ClientLimits(rediscovery_interval_seconds=0.02)
    async with (
        replicas(2) as (one, other),
        Client([one.address, other.address], prefer=one.address, limits=limits) as client,
    ):
        await one.die()
        await eventually(lambda: client.at == other.address, "the client flees")
        await one.start()
        await eventually(lambda: client.at == one.address, "the client returns")
        assert await client.execute(command("INCR a")) == 1


async def test_a_command_over_the_limit_of_replicas_fails_and_the_others_do_not() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        long = encode([b"SET", b"long", bytes(8 << 20)])
        ping = command("INCR a")
        outcomes = await client.execute_many([ping, long, ping, ping, long])
        assert [outcomes[place] for place in (0, 2, 3)] == [1, 2, 3]
        for place in (1, 4):
            failure = outcomes[place]
            assert isinstance(failure, CommandFailed)
            assert f"over the limit of {8 << 20}" in failure.message
        with pytest.raises(CommandFailed, match="it was not sent"):
            await client.execute(long)
        assert client.in_flight == 0


async def test_a_result_too_large_to_be_sent_is_a_failure_that_names_the_limit() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        await client.execute(encode([b"SET", b"a", bytes(1 << 20)]))
        with pytest.raises(CommandFailed, match=f"over the limit of {64 << 20}"):
            await client.execute(encode([b"MGET", *[b"a"] * 100_000]))


@asynccontextmanager
async def scripted(
    play: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Address]:
    """A replica that does what the script says; waits until it is played to the end with everyone."""
    playing: set[asyncio.Task[None]] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await play(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
        await asyncio.gather(*playing)


async def test_the_nearest_replica_is_chosen() -> None:
    greeting = asyncio.Event()

    async def greet_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeting.wait()
        writer.write(CLIENT_PREAMBLE + encode_message(Welcome("shop", "far", 2, (), True, GRANT, 8 << 20)))
        await reader.read()

    async with scripted(greet_late) as far, replicas(1) as (near,):
        for addresses in ([far, near.address], [near.address, far]):
            async with Client(addresses) as client:
                assert client.at == near.address
        greeting.set()


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", encode_message(ClientAnswers([7], [b"x"])), b"\xff" * 99]
)
async def test_a_replica_that_sends_garbage_is_replaced(garbage: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CLIENT_PREAMBLE + encode_message(Welcome("shop", "mad", 2, (), True, GRANT, 8 << 20)))
        await reader.readuntil(command("INCR a"))
        writer.write(garbage)
        await reader.read()

    async with (
        scripted(babble) as mad,
        replicas(1) as (sane,),
        Client([mad, sane.address], prefer=mad) as client,
    ):
        assert client.at == mad
        assert await client.execute(command("INCR a")) == 1


# Without a loop


async def test_the_blocking_client_serves_many_threads() -> None:
    async with replicas(1) as (one,):
        outcomes: list[CallOutcome] = []

        def work() -> None:
            with BlockingClient([one.address]) as client:

                def count() -> None:
                    outcomes.extend(client.execute(command("INCR a")) for _ in range(50))

                threads = [threading.Thread(target=count) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                outcomes.extend(client.execute_many([command("GET a")]))
                with pytest.raises(CommandFailed):
                    client.execute(command("LPUSH a x"))
            with pytest.raises(ClientClosed):
                client.execute(command("GET a"))
            client.close()

        await asyncio.to_thread(work)
        assert sorted(outcomes[:-1], key=str) == sorted(range(1, 201), key=str)
        assert outcomes[-1] == b"200"


async def test_a_blocking_client_without_a_replica_raises_and_leaves_no_thread() -> None:
    def work() -> None:
        with pytest.raises(NoReplicaReachable), BlockingClient([NOBODY], limits=ClientLimits(timeout_seconds=0.1)):
            pass

    await asyncio.to_thread(work)
    assert not [thread for thread in threading.enumerate() if thread.name == "pydsm-client"]
