"""Checks the callers of the HTTP port: requests caused by web pages are refused.

Prevents two attacks of web pages on a port that a browser can reach: a page whose own name resolves to the address of
the port reads its answers (DNS rebinding), which the `Host` header shows; and a page of another site posts to it, which
`Origin` and `Sec-Fetch-Site` show. A page cannot change these headers.
"""

from collections.abc import Iterable
from ipaddress import ip_address

from multidict import CIMultiDictProxy

ANY_HOST = "*"
"""In the list of names: any name is allowed, for ports behind a proxy that checks it."""

_NOT_FROM_A_PAGE = frozenset(("none",))
_PAGES_SEND = ("Origin", "Referer")


class Hosts:
    """The host names that requests may have, besides addresses and localhost."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.strip().lower().rstrip(".") for name in names if name.strip())

    def why_not(self, headers: CIMultiDictProxy[str]) -> str | None:
        """Why a request with these headers is refused, or None. Browsers always send `Host`."""
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
    """Why a request with these headers must not change the replica, or None if it may."""
    site = headers.get("Sec-Fetch-Site")
    if any(name in headers for name in _PAGES_SEND) or (site is not None and site not in _NOT_FROM_A_PAGE):
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
