"""Runs one group with one plan of faults, and checks it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydsm.bench.resp import RespReply, ask, encode_command
from pydsm.cli.serve import Storage
from pydsm.cli.status import fetch
from pydsm.core.types.errors import OperationalError, PeerProtocolError
from pydsm.server.report import StatusReport
from pydsm.sim.checkers.linearizability import LinearizabilityResult, Linearizable, check
from tests.integration.faults.clients import KeyModel, Ledger, RecordingClient, read_everything
from tests.integration.faults.faults import Fault
from tests.integration.faults.group import WiredGroup

RECOVERY_SECONDS_MAX = 30.0
"""By when a group that is whole again serves through every replica, and all know the same.

A restart, the recovery timeout with every replica's turn, two rounds of questions, and the longest wait between two
connections are 5 s together on an idle machine; the rest is for busy ones."""

CLIENTS_PER_REPLICA = 2
SHORT_MEMORY = ("--checkpoint-instances", "50", "--window-bytes", "50000")
"""Options of a group in which a replica that was down briefly has to fetch a snapshot."""

_POLL_SECONDS = 0.05
_ASK_SECONDS = 5.0
_STALL_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Report:
    """The results of a run."""

    calls: int
    unknown: int
    recovery_seconds: float
    """From when the last fault began to be mended until every replica had answered a write: restarts count."""
    verdict: LinearizabilityResult
    snapshots_installed: int = 0
    """How often a replica began again with the snapshot of another."""

    def __str__(self) -> str:
        good = "linearizable" if isinstance(self.verdict, Linearizable) else f"WRONG: {self.verdict}"
        fetched = f"{self.snapshots_installed} snapshots fetched, " if self.snapshots_installed else ""
        return f"{self.calls} calls, {self.unknown} unknown, {fetched}well after {self.recovery_seconds:.1f} s, {good}"


async def run(
    replicas: int,
    faults: Sequence[Fault],
    directory: Path,
    *,
    seed: int,
    storage: Storage = Storage.SQLITE,
    options: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
    ledger: Ledger | None = None,
) -> Report:
    """Load a group while all of this happens to it, let it recover, read everything back, and check what clients saw.

    Raises AssertionError when the group does not recover in time.
    """
    ledger = ledger or Ledger()
    async with WiredGroup(replicas, directory, storage, *options) as group:
        clients = [
            RecordingClient(number, group.redis, ledger, seed) for number in range(CLIENTS_PER_REPLICA * replicas)
        ]
        running = [asyncio.create_task(client.run()) for client in clients]
        try:
            for fault in faults:
                say(str(fault))
                await _more_answers(ledger, fault.answers)
                await fault.happen(group, fault.seconds)
            recovery_seconds = await _recovery(group)
            await _more_answers(ledger, 100)
        finally:
            for client in clients:
                client.stop()
            await asyncio.gather(*running)
        await _agree(group)
        await read_everything(ledger, group.redis)
        installed = sum(
            member.log.read_text(encoding="utf-8", errors="replace").count("is installed; it begins again")
            for member in group.members
        )
    calls = ledger.history.calls
    unknown = sum(call.result is None and call.outcome.name == "UNKNOWN" for call in calls)
    return Report(len(calls), unknown, recovery_seconds, check(ledger.history, KeyModel()), installed)


async def _more_answers(ledger: Ledger, count: int) -> None:
    """Wait for progress. A group without faults that makes none has failed."""
    wanted, loop = ledger.answered + count, asyncio.get_running_loop()
    deadline = loop.time() + _STALL_SECONDS_MAX
    while ledger.answered < wanted:
        assert loop.time() < deadline, f"the group gave fewer than {count} answers in {_STALL_SECONDS_MAX:g} s"
        await asyncio.sleep(_POLL_SECONDS)


async def _recovery(group: WiredGroup) -> float:
    """Seconds from the end of all faults until a write through each replica is answered."""
    await asyncio.gather(*(_first_write(group, replica) for replica in range(group.size)))
    return asyncio.get_running_loop().time() - group.whole_since


async def _first_write(group: WiredGroup, replica: int) -> None:
    loop = asyncio.get_running_loop()
    deadline = group.whole_since + RECOVERY_SECONDS_MAX
    reply: RespReply = b"it was not asked in time"
    while (left := deadline - loop.time()) > 0:
        try:
            (reply,) = await ask(group.redis[replica], encode_command(b"INCR", b"well"), seconds_max=left)
        except (OSError, PeerProtocolError) as error:
            reply = (str(error) or type(error).__name__).encode()
        if isinstance(reply, int):
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise AssertionError(f"r{replica + 1} took no write for {loop.time() - group.whole_since:.1f} s: {reply!r}")


async def _agree(group: WiredGroup) -> None:
    """Wait until all replicas are ready without load, and have executed the same instances."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RECOVERY_SECONDS_MAX
    while True:
        try:
            reports = await asyncio.gather(*(asyncio.to_thread(fetch, address, _ASK_SECONDS) for address in group.http))
            wrong = disagreement(reports)
        except OperationalError as fault:
            wrong = str(fault)
        if wrong is None:
            return
        assert loop.time() < deadline, f"after {RECOVERY_SECONDS_MAX:g} s without load, {wrong}"
        await asyncio.sleep(_POLL_SECONDS)


def disagreement(reports: Sequence[StatusReport]) -> str | None:
    """Why these replicas are not all ready with the same executed instances, or None if they are."""
    for report in reports:
        if not report.ready:
            return f"{report.name} is not ready: {report.not_ready_because}"
        if any(member.lag for member in report.members):
            return f"{report.name} has heard of more than it has executed: {_told(report)}"
    frontiers = {tuple(member.executed for member in report.members) for report in reports}
    return None if len(frontiers) == 1 else f"frontiers differ: {'; '.join(map(_told, reports))}"


def _told(report: StatusReport) -> str:
    return f"{report.name} " + ", ".join(f"{one.name}: {one.executed} of {one.known}" for one in report.members)
