"""Chooses the replica that a client uses: the preferred one, or the nearest that is ready.

Connects to all replicas concurrently to choose one, and changes the replica only if the gain is large enough. Closes
the connections that are not used. How the chosen link is used is decided in `client`.
"""

import asyncio
from collections.abc import Sequence

from pydsm.client.limits import ClientLimits
from pydsm.client.link import CompletedHandshake, Link, LinkOwner
from pydsm.core.types.errors import PeerProtocolError
from pydsm.transport.address import Address

_AVOID_SECONDS = 3.0
_GRACE_SECONDS = 0.005


class Finder:
    """Opens links for `owner`, which must call `remove` for each link that is lost."""

    def __init__(
        self, owner: LinkOwner, addresses: Sequence[Address], prefer: Address | None, group: str, limits: ClientLimits
    ) -> None:
        self._owner = owner
        self._addresses = addresses
        self._prefer = prefer
        self._group = group
        self._limits = limits
        self._links: dict[Link, None] = {}
        self._errors: dict[Address, str] = {}
        self._avoid_until: dict[Address, float] = {}

    def avoid(self, address: Address, reason: str) -> None:
        """Avoid this replica for a while."""
        self._errors[address] = reason
        self._avoid_until[address] = asyncio.get_running_loop().time() + _AVOID_SECONDS

    def clear_error(self, address: Address) -> None:
        """Discard the last error of a replica: it is in use."""
        self._errors.pop(address, None)

    def errors(self) -> str:
        """The last error of each replica."""
        return "; ".join(f"{address}: {self._errors.get(address, 'no answer yet')}" for address in self._addresses)

    def remove(self, link: Link) -> None:
        """A link is closed."""
        self._links.pop(link, None)

    def close(self, reason: str) -> None:
        """Close all links."""
        for link in list(self._links):
            link.close(reason)

    async def best_link(self, current: Link | None) -> Link | None:
        """The link to use, which may be the current one; None if no replica answers."""
        current = current if current is not None and current.is_open else None
        if current is not None and current.address == self._prefer:
            return current
        loop = asyncio.get_running_loop()
        tries = {loop.create_task(self._connect(address)): address for address in self._addresses}
        reached: list[tuple[Link, CompletedHandshake]] = []
        try:
            waiting: set[asyncio.Task[tuple[Link, CompletedHandshake] | None]] = set(tries)
            grace: float | None = None
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
                reached += [one for task in done if (one := task.result()) is not None]
                if not done:
                    break
                if any(handshake.welcome.ready for _, handshake in reached):
                    grace = _GRACE_SECONDS + 2 * reached[0][1].round_trip_seconds
        finally:
            for task in tries:
                task.cancel()
            results = await asyncio.gather(*tries, return_exceptions=True)
            reached = [one for one in results if isinstance(one, tuple)]
            best = self._best([one for one in reached if one[0].is_open], current)
            for link, _ in reached:
                if link is not best:
                    self._drop(link)
        return best

    def _best(self, reached: list[tuple[Link, CompletedHandshake]], current: Link | None) -> Link | None:
        """The preferred replica, or the nearest ready one; the current one is kept unless another is much nearer."""
        now = asyncio.get_running_loop().time()

        def rank(one: tuple[Link, CompletedHandshake]) -> tuple[bool, bool, bool, float]:
            link, handshake = one
            avoided = self._avoid_until.get(link.address, 0.0) > now
            return avoided, not handshake.welcome.ready, link.address != self._prefer, handshake.round_trip_seconds

        best = min(reached, key=rank, default=None)
        if best is None or current is None or best[0].address == current.address:
            return current if best is None or current is not None else best[0]
        here = next((one for one in reached if one[0].address == current.address), None)
        if here is None or rank(best)[:3] < rank(here)[:3]:
            return best[0]
        return best[0] if best[1].round_trip_seconds < here[1].round_trip_seconds / 2 else current

    async def _connect(self, address: Address) -> tuple[Link, CompletedHandshake] | None:
        """A link with a completed handshake; None, and a stored error, if that fails."""
        link = Link(self._owner, address, self._group)
        self._links[link] = None
        try:
            async with asyncio.timeout(self._limits.connect_seconds_max):
                await asyncio.get_running_loop().create_connection(lambda: link, address.host, address.port)
                return link, await asyncio.shield(link.handshake)
        except (OSError, PeerProtocolError) as error:  # a TimeoutError is an OSError
            self._errors[address] = "it does not answer" if isinstance(error, TimeoutError) else str(error)
            self._drop(link)
            return None
        except asyncio.CancelledError:
            self._drop(link)
            raise

    def _drop(self, link: Link) -> None:
        """Close a link that was never used."""
        link.close("another replica was chosen")
        self._links.pop(link, None)
