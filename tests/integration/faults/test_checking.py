"""The checker of real groups rejects answers that no correct group gives."""

import asyncio
import contextlib
from random import Random

import pytest

from pydsm.server.report import MemberReport, StatusReport
from pydsm.sim.base.history import History
from pydsm.sim.checkers.linearizability import Linearizable, NotLinearizable, check
from pydsm.transport.address import Address
from tests.integration.faults.clients import KeyModel, Ledger, read_everything
from tests.integration.faults.faults import plan
from tests.integration.faults.run import disagreement

Step = tuple[str, int | None, object]


def after_another(*steps: Step) -> History:
    """Sequential calls."""
    history = History()
    for place, (action, argument, result) in enumerate(steps):
        call = history.begin(2 * place, 1, "k", action, argument)
        history.done(call, 2 * place + 1, result)
    return history


@pytest.mark.parametrize(
    "steps",
    [
        [
            ("get", None, None),
            ("set", 5, "OK"),
            ("get", None, 5),
            ("incr", None, 6),
            ("swap", 9, 6),
            ("claim", 1, None),
        ],
        [("claim", 3, "OK"), ("claim", 4, None), ("get", None, 3)],
        [("incr", None, 1), ("incr", None, 2)],
    ],
)
def test_a_correct_history_is_accepted(steps: list[Step]) -> None:
    assert isinstance(check(after_another(*steps), KeyModel()), Linearizable)


@pytest.mark.parametrize(
    "steps",
    [
        [("set", 5, "OK"), ("get", None, None)],  # an acknowledged write is lost
        [("set", 5, "OK"), ("set", 6, "OK"), ("get", None, 5)],  # a stale read
        [("incr", None, 1), ("incr", None, 1)],  # two counted the same
        [("claim", 5, "OK"), ("claim", 6, "OK")],  # two hold what only one can
        [("set", 5, "OK"), ("swap", 6, 4)],  # a value that nobody wrote
        [("set", 5, "OK"), ("get", None, "WRONGTYPE")],  # an error out of nowhere
    ],
)
def test_an_incorrect_history_is_rejected(steps: list[Step]) -> None:
    assert isinstance(check(after_another(*steps), KeyModel()), NotLinearizable)


def test_an_unanswered_write_may_have_been_executed_or_not_but_not_both() -> None:
    history = after_another(("set", 1, "OK"))
    history.unknown(history.begin(2, 2, "k", "set", 7), 3)
    for number, seen in enumerate((1, 7, 7)):
        history.done(history.begin(10 + 2 * number, 1, "k", "get"), 11 + 2 * number, seen)
    assert isinstance(check(history, KeyModel()), Linearizable)
    history.done(history.begin(30, 1, "k", "get"), 31, 1)
    assert isinstance(check(history, KeyModel()), NotLinearizable)


def test_a_seed_always_gives_the_same_faults() -> None:
    assert [str(fault) for fault in plan(7, 5, 20, 10)] == [str(fault) for fault in plan(7, 5, 20, 10)]
    assert len({fault.name.split()[0] for fault in plan(7, 5, 50, 10)}) == 4


async def test_a_refused_final_read_is_an_error() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(b"-TRYAGAIN later\r\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    gone, ledger = asyncio.Event(), Ledger()
    ledger.settle(ledger.begin(0, Random(1)), b"OK")
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        with pytest.raises(AssertionError, match="refused to read k0"):
            await read_everything(ledger, [Address("127.0.0.1", server.sockets[0].getsockname()[1])])
        await gone.wait()


def told(
    name: str, executed: tuple[int, int], known: tuple[int, int], not_ready_because: str | None = None
) -> StatusReport:
    """The status report of one of two replicas."""
    return StatusReport(
        version="0",
        group="g",
        name=name,
        replica=0,
        incarnation="0",
        healthy=True,
        ready=not_ready_because is None,
        not_ready_because=not_ready_because,
        members=tuple(
            MemberReport(
                name=f"r{leader + 1}",
                replica=leader,
                connected=True,
                last_report_age_seconds=0.1,
                executed=done,
                known=highest,
                lag=highest - done,
            )
            for leader, (done, highest) in enumerate(zip(executed, known, strict=True))
        ),
        counters={},
        recovery_rules={},
        fast_share=None,
        commands_waiting=0,
        disk_queue_turns=0,
        traffic={},
    )


def test_replicas_agree_if_all_are_ready_and_have_executed_everything_known() -> None:
    assert disagreement([told("r1", (4, 7), (4, 7)), told("r2", (4, 7), (4, 7))]) is None


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (told("r2", (4, 7), (4, 7), "it is stopping"), "r2 is not ready: it is stopping"),
        (told("r2", (4, 6), (4, 7)), "r2 has heard of more than it has executed: r2 r1: 4 of 4, r2: 6 of 7"),
        (told("r2", (4, 6), (4, 6)), "frontiers differ: r1 r1: 4 of 4, r2: 7 of 7; r2 r1: 4 of 4, r2: 6 of 6"),
    ],
)
def test_replicas_do_not_agree(other: StatusReport, complaint: str) -> None:
    assert disagreement([told("r1", (4, 7), (4, 7)), other]) == complaint
