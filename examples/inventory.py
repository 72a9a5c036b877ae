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
    lines = asyncio.StreamReader()  # not a thread that reads: Ctrl-C would wait for its next line
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with Replica(Inventory, name=name, listen=PEERS[name], peers=PEERS, data_dir=f"data-{name}") as inventory:
        async for line in lines:
            match line.decode().split():
                case ["add", sku, n] if n.isdecimal():
                    await inventory.add(sku, int(n))
                case ["left", sku]:
                    pass
                case _:
                    print('type "add SKU NUMBER" or "left SKU"', flush=True)
                    continue
            print(f"{sku}: {await inventory.left(sku)}", flush=True)


asyncio.run(main(sys.argv[1]))
