"""A type checker and an editor know the commands of a replica, a client and a group."""

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
from pydsm import Replica, StateMachine, blocking, command, connect, everything, query
from pydsm.testing import Group


class Inventory(StateMachine):
    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command(updates="sku")
    def add(self, sku: str, n: int) -> None:
        self.stock[sku] = self.stock.get(sku, 0) + n

    @command(writes=everything)
    def take(self, sku: str, n: int = 1, *, note: str = "") -> int:
        return Inventory.left(self, sku) - n

    @query(reads="sku")
    def left(self, sku: str) -> int:
        return self.stock.get(sku, 0)

    @query
    def all(self) -> dict[str, int]:
        return self.stock


async def main() -> None:
    peers = {"a": "127.0.0.1:7000"}
    async with Replica(Inventory, name="a", listen="127.0.0.1:7000", peers=peers, data_dir=None) as inventory:
        await inventory.add("bolt", 5)
        left: int = await inventory.take("bolt", note="x", timeout=1.5)
        table: dict[str, int] = await inventory.all()
        await inventory.add("bolt", "five")  # error: call-overload
        await inventory.add("bolt")  # error: call-overload
        text: str = await inventory.left("bolt")  # error: assignment
        await inventory.missing()  # error: attr-defined
        print(left, table, text)
    async with connect("127.0.0.1:7100", Inventory) as client, Group(Inventory, 3) as group:
        await client.add("bolt", n=5)
        await group[0].add(sku="bolt", n=5)
        await client.left(5)  # error: call-overload
        await group[1].left(5)  # error: call-overload
    with blocking.connect("127.0.0.1:7100", Inventory) as shop:
        shop.add("bolt", 5)
        number: int = shop.call(Inventory.left, "bolt")
        shop.call(Inventory.left, 5)  # error: arg-type
        print(number)
"""


def test_mypy_knows_the_signatures_of_commands_through_a_replica(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    line = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", str(program)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    expected = [
        (number, text.split("# error: ")[1])
        for number, text in enumerate(_PROGRAM.splitlines(), start=1)
        if "# error: " in text
    ]
    found = [
        (int(text.split(":")[1]), text.rpartition("[")[2].rstrip("]"))
        for text in done.stdout.splitlines()
        if ": error: " in text
    ]
    assert found == expected, done.stdout + done.stderr
