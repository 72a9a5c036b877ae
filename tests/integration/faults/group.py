"""A group of real replicas that are connected through proxies ("wires")."""

import asyncio
import signal
from pathlib import Path

from pydsm.cli.local_group import LocalGroup, free_ports
from pydsm.cli.serve import Storage
from pydsm.transport.address import Address
from tests.integration.faults.wires import Cut, Wire


class WiredGroup(LocalGroup):
    """A `LocalGroup` with a wire for each pair and direction."""

    def __init__(self, replicas: int, directory: Path, storage: Storage = Storage.SQLITE, *options: str) -> None:
        super().__init__(replicas, directory, storage, *options)
        self.size = replicas
        self.whole_since = 0.0
        """When, by the loop's clock, the last repair began: from then on the group must recover automatically."""
        self.http: list[Address] = []
        """Where each replica says how it is."""
        self._wires: dict[tuple[int, int], Wire] = {}
        self._entrances: dict[tuple[int, int], Address] = {}

    async def __aenter__(self) -> "WiredGroup":
        await super().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await super().__aexit__()
        finally:
            await self._take_wires_away()

    def choose_members(self) -> None:
        """Choose new addresses; the wires of earlier attempts are not used any more."""
        super().choose_members()
        self.http = [Address("127.0.0.1", port) for port in free_ports(self.size)]
        self._entrances.clear()

    def address_for(self, replica: int, peer: int) -> Address:
        """The address at which `replica` dials `peer`: that of their wire."""
        return self._entrances.get((replica, peer), self.members[peer].listen)

    def command(self, replica: int) -> list[str]:
        """See `LocalGroup`."""
        return [*super().command(replica), "--http", str(self.http[replica])]

    async def start(self, replica: int) -> None:
        """See `LocalGroup`."""
        self._mend()
        for peer in range(self.size):
            if peer != replica and (replica, peer) not in self._entrances:
                wire = self._wires[replica, peer] = Wire(self.members[peer].listen)
                self._entrances[replica, peer] = await wire.start()
        await super().start(replica)

    async def _take_wires_away(self) -> None:
        await asyncio.gather(*(wire.stop() for wire in self._wires.values()))

    def cut(self, sender: int, receiver: int, how: Cut) -> None:
        """Block the messages from one replica to another."""
        self._wires[sender, receiver].cut(how)

    def hold_after(self, sender: int, receiver: int, bytes_more: int) -> None:
        """Let about this number of bytes from one replica to another pass, and block the rest."""
        self._wires[sender, receiver].hold_after(bytes_more)

    def isolate(self, replicas: list[int], how: Cut) -> None:
        """Block all messages between these replicas and the others."""
        for sender, receiver in self._wires:
            if (sender in replicas) != (receiver in replicas):
                self.cut(sender, receiver, how)

    def heal(self) -> None:
        """Restore all wires."""
        self._mend()
        for wire in self._wires.values():
            wire.heal()

    def heal_wire(self, sender: int, receiver: int) -> None:
        """Restore the wire from one replica to another."""
        self._mend()
        self._wires[sender, receiver].heal()

    def pause(self, replica: int) -> None:
        """Pause a process with SIGSTOP."""
        self._signal(replica, signal.SIGSTOP)

    def resume(self, replica: int) -> None:
        """Resume a paused process."""
        self._mend()
        self._signal(replica, signal.SIGCONT)

    def _mend(self) -> None:
        self.whole_since = asyncio.get_running_loop().time()

    def _signal(self, replica: int, number: signal.Signals) -> None:
        process = self.members[replica].process
        if process is not None and process.returncode is None:
            process.send_signal(number)
