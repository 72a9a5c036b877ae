"""The order of a native client's commands: in its sessions, and from one session to the next."""

import asyncio

import pytest

from pydsm.client import Client
from pydsm.client import session as session_module
from pydsm.client_protocol.answers import Aborted
from pydsm.core.types.ids import sequence_of, session_of
from tests.unit.client.test_client import QUICK, command, replicas
from tests.waiting import eventually


async def test_each_run_names_the_request_before_it() -> None:
    async with replicas(1) as (one,), Client([one.address]) as client:
        await client.execute_many([command("INCR a")] * 3)
        await asyncio.gather(*(client.execute(command("INCR a")) for _ in range(2)))
        runs = [(sequence_of(run.first), run.count, run.after) for run, _ in one.agreement.runs]
        assert runs == [(1, 3, 0), (4, 2, 3)]


async def test_new_commands_wait_until_those_of_another_session_have_their_outcome() -> None:
    async with (
        replicas(2) as (one, two),
        Client([one.address, two.address], prefer=one.address, limits=QUICK) as client,
    ):
        one.agreement.holding = two.agreement.holding = True
        first = asyncio.create_task(client.execute(command("SET data new")))
        await eventually(lambda: len(one.agreement.waiting) == 1, "the first is under way")
        await one.die()
        second = asyncio.create_task(client.execute(command("SET ready yes")))
        await eventually(lambda: len(two.agreement.waiting) == 1, "the first is sent again elsewhere")
        await eventually(lambda: client.at == two.address, "the client has moved")
        assert b"data" in two.agreement.waiting[0][0]
        assert not second.done()
        two.agreement.holding = False
        two.agreement.release()
        assert [await first, await second] == ["OK", "OK"]
        (again, was_again), (new, is_again) = two.agreement.runs
        assert (was_again, is_again) == (True, False)
        assert session_of(again.first) != session_of(new.first)


async def test_refused_requests_are_sent_again_under_their_ids_and_in_their_order() -> None:
    async with replicas(1) as (one,), Client([one.address], limits=QUICK) as client:
        one.agreement.refusal = Aborted("five nops")
        asked = [asyncio.create_task(client.execute(command(f"RPUSH log {number}"))) for number in range(20)]
        await eventually(lambda: len(one.agreement.runs) >= 1, "all were refused")
        one.agreement.refusal = None
        assert await asyncio.gather(*asked) == list(range(1, 21))
        assert len({sequence_of(run.first) for run, _ in one.agreement.runs}) <= 20
        assert await client.execute(command("LRANGE log 0 -1")) == [b"%d" % number for number in range(20)]


async def test_a_session_ends_when_all_its_requests_have_outcomes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with replicas(1) as (one,), Client([one.address], limits=QUICK) as client:
        one.agreement.holding = True
        first = asyncio.create_task(client.execute(command("SET data new")))
        await eventually(lambda: len(one.agreement.waiting) == 1, "the first is under way")
        monkeypatch.setattr(session_module, "RENEWAL_MS", 0)
        second = asyncio.create_task(client.execute(command("SET ready yes")))
        await eventually(lambda: client.in_flight == 2, "the second is handed over")
        one.agreement.release()
        assert await first == "OK"
        await eventually(lambda: len(one.agreement.waiting) == 1, "the second is sent")
        one.agreement.release()
        assert await second == "OK"
        old, new = [session_of(run.first) for run, _ in one.agreement.runs]
        assert old < new
