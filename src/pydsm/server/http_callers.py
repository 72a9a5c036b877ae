"""Checks the callers of the HTTP port: requests caused by web pages are refused.

Guards against two things that web pages can do to a port that is reachable from a browser: have their own name resolve
to its address and read what it says (DNS rebinding), which the `Host` header gives away; and post to it from another
site, which `Origin` and `Sec-Fetch-Site` give away. A page cannot change any of these.
"""

from collections.abc import Iterable
from ipaddress import ip_address

from multidict import CIMultiDictProxy

ANY_HOST = "*"
"""In the list of names: whatever name, for ports behind something that checks it."""

_FROM_NO_PAGE = frozenset(("none",))
_PAGES_SEND = ("Origin", "Referer")


class Hosts:
    """By which names the port may be asked, besides addresses and localhost."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.strip().lower().rstrip(".") for name in names if name.strip())

    def why_not(self, headers: CIMultiDictProxy[str]) -> str | None:
        """Why a request with these headers is refused, or None. One without `Host` is from no browser."""
        given = headers.getall("Host", [])
        if len(given) > 1:
            return "a request names one Host"
        if not given or ANY_HOST in self._names or self._is_known(given[0]):
            return None
        return (
            "this port does not accept that Host: use its address or localhost, or start the replica with the name in "
            "--http-hosts"
        )

    def _is_known(self, host: str) -> bool:
        name = _without_port(host).lower().rstrip(".")
        return name == "localhost" or name in self._names or _is_address(name)


def why_no_change(headers: CIMultiDictProxy[str]) -> str | None:
    """Why a request with these headers may change nothing, whoever sends it; or None."""
    site = headers.get("Sec-Fetch-Site")
    if any(name in headers for name in _PAGES_SEND) or (site is not None and site not in _FROM_NO_PAGE):
        return "web pages may change nothing here: use the pydsm command on the replica's computer"
    return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
