"""The part of the HTTP port that changes the replica: POST to /pause, /resume and /snapshot.

Accepts only callers on the replica's own computer, and no web page. The rest of the port answers every caller
without a password, so nothing on it may let a remote caller stop a replica. The actions themselves are in
`runtime/maintenance`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address

import msgspec
from aiohttp import web

from pydsm.core.types.errors import OperationalError, UsageError
from pydsm.runtime.maintenance import Maintenance
from pydsm.server.http_callers import why_no_change
from pydsm.transport.sockets import own_address, peer_address

VERBS = ("/pause", "/resume", "/snapshot")
"""The paths of these routes."""

SECONDS_MAX = 600.0
"""The longest time, in seconds, that a caller may give."""

_REST_SECONDS = 120.0
"""Seconds that a connection may stay open in addition to the caller's time, while the machine stops or starts."""

Allow = Callable[[web.RequestHandler, float], None]
"""Sets the deadline of a connection, in seconds from now."""


class AdminRoutes:
    """The routes of three paths. Status 200 has a report, 400 and 409 mean nothing was done, 503 that it failed."""

    def __init__(self, maintenance: Maintenance, allow: Allow) -> None:
        self._maintenance = maintenance
        self._allow = allow

    def routes(self) -> list[web.RouteDef]:
        """The routes, for the application of the HTTP port."""
        return [
            web.post("/pause", self._pause),
            web.post("/resume", self._resume),
            web.post("/snapshot", self._snapshot),
        ]

    async def _pause(self, request: web.Request) -> web.Response:
        return await self._answer(request, 5.0, self._maintenance.pause)

    async def _resume(self, request: web.Request) -> web.Response:
        return await self._answer(request, SECONDS_MAX, lambda seconds: self._maintenance.resume())

    async def _snapshot(self, request: web.Request) -> web.Response:
        return await self._answer(request, 60.0, self._maintenance.snapshot)

    async def _answer(
        self, request: web.Request, default_seconds: float, act: Callable[[float], Awaitable[msgspec.Struct]]
    ) -> web.Response:
        refusal = _why_not(request)
        if refusal is not None:
            return _line(403, refusal)
        seconds = _seconds(request, default_seconds)
        if seconds is None:
            return _line(400, f"seconds is a number from 0 to {SECONDS_MAX:g}")
        self._allow(request.protocol, seconds + _REST_SECONDS)
        try:
            # a caller that disconnects must not interrupt a pause halfway
            report = await asyncio.shield(asyncio.ensure_future(act(seconds)))
        except UsageError as fault:
            return _line(409, str(fault))
        except OperationalError as fault:
            return _line(503, str(fault))
        return web.Response(body=msgspec.json.encode(report), content_type="application/json")


def _why_not(request: web.Request) -> str | None:
    """Why this caller must not change the replica, or None if it may."""
    from_a_page = why_no_change(request.headers)
    if from_a_page is not None:
        return from_a_page
    transport = request.transport
    caller = peer_address(transport)
    here = None if transport is None else own_address(transport)
    if not (caller and here and is_same_computer(caller.host, here.host)):
        return "only callers on the replica's own computer may change it: run the command there"
    return None


def is_same_computer(caller: str, here: str) -> bool:
    """Whether both ends of a connection are on one computer: their addresses are equal, or the caller's is loopback."""
    address = ip_address(caller.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return caller == here or address.is_loopback


def _seconds(request: web.Request, default: float) -> float | None:
    """The time in seconds that the caller gives; None if it is not valid."""
    try:
        seconds = float(request.query.get("seconds", default))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= SECONDS_MAX else None


def _line(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{' '.join(text.split())}\n")
