"""Which replica a client uses: the one that it prefers, or the nearest that is ready.

Connects to all replicas together to choose one, and moves only if the gain is large enough. Closes connections that
are not used. What a client does with the chosen link is decided in `client`.
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
    """Finds links for `owner`, who must call `gone` for each that is lost."""

    def __init__(
        self, owner: LinkOwner, addresses: Sequence[Address], prefer: Address | None, group: str, limits: ClientLimits
    ) -> None:
        self._owner = owner
        self._addresses = addresses
        self._prefer = prefer
        self._group = group
        self._limits = limits
        self._links: dict[Link, None] = {}
        self._complaints: dict[Address, str] = {}
        self._avoid_until: dict[Address, float] = {}

    def avoid(self, address: Address, reason: str) -> None:
        """Avoid this replica for a while."""
        self._complaints[address] = reason
        self._avoid_until[address] = asyncio.get_running_loop().time() + _AVOID_SECONDS

    def content_with(self, address: Address) -> None:
        """It is in use: clear the penalty."""
        self._complaints.pop(address, None)

    def complaints(self) -> str:
        """The last error of each replica."""
        return "; ".join(f"{address}: {self._complaints.get(address, 'no answer yet')}" for address in self._addresses)

    def gone(self, link: Link) -> None:
        """It was lost, or dropped."""
        self._links.pop(link, None)

    def close(self, reason: str) -> None:
        """All links that there are."""
        for link in list(self._links):
            link.close(reason)

    async def best_link(self, current: Link | None) -> Link | None:
        """The link to be used, which may be the present one; None when no replica answers."""
        current = current if current is not None and current.is_open else None
        if current is not None and current.address == self._prefer:
            return current
        loop = asyncio.get_running_loop()
        tries = {loop.create_task(self._greet(address)): address for address in self._addresses}
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
        """The preferred one, or the nearest, if it is ready; but a move must be worth it."""
        now = asyncio.get_running_loop().time()

        def badness(one: tuple[Link, CompletedHandshake]) -> tuple[bool, bool, bool, float]:
            link, handshake = one
            avoided = self._avoid_until.get(link.address, 0.0) > now
            return avoided, not handshake.welcome.ready, link.address != self._prefer, handshake.round_trip_seconds

        best = min(reached, key=badness, default=None)
        if best is None or current is None or best[0].address == current.address:
            return current if best is None or current is not None else best[0]
        here = next((one for one in reached if one[0].address == current.address), None)
        if here is None or badness(best)[:3] < badness(here)[:3]:
            return best[0]
        return best[0] if best[1].round_trip_seconds < here[1].round_trip_seconds / 2 else current

    async def _greet(self, address: Address) -> tuple[Link, CompletedHandshake] | None:
        """A link with a completed handshake; None, and a stored error, if that fails."""
        link = Link(self._owner, address, self._group)
        self._links[link] = None
        try:
            async with asyncio.timeout(self._limits.connect_seconds_max):
                await asyncio.get_running_loop().create_connection(lambda: link, address.host, address.port)
                return link, await asyncio.shield(link.handshake)
        except (OSError, PeerProtocolError) as error:  # a TimeoutError is an OSError
            self._complaints[address] = "it does not answer" if isinstance(error, TimeoutError) else str(error)
            self._drop(link)
            return None
        except asyncio.CancelledError:
            self._drop(link)
            raise

    def _drop(self, link: Link) -> None:
        """Close a link that was never used."""
        link.close("another replica was chosen")
        self._links.pop(link, None)
