"""An inventory that three processes share: start it with a, b and c, then type "add bolt 5" or "left bolt" into any."""

import asyncio
import sys

from pydsm import Replica, StateMachine, command, query

PEERS = {"a": "127.0.0.1:7000", "b": "127.0.0.1:7001", "c": "127.0.0.1:7002"}


class Inventory(StateMachine):
    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command(updates="sku")
    def add(self, sku: str, n: int) -> None:
        self.stock[sku] = self.stock.get(sku, 0) + n

    @query(reads="sku")
    def left(self, sku: str) -> int:
        return self.stock.get(sku, 0)


async def main(name: str) -> None:
    async with Replica(Inventory, name=name, listen=PEERS[name], peers=PEERS, data_dir=f"data-{name}") as inventory:
        while line := await asyncio.to_thread(sys.stdin.readline):
            verb, sku, *n = line.split()
            if verb == "add":
                await inventory.add(sku, int(n[0]))
            print(f"{sku}: {await inventory.left(sku)}", flush=True)


asyncio.run(main(sys.argv[1]))
