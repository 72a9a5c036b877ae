"""What must not be called in a command, because its result or its effect is not the same at every replica."""

import datetime
import heapq
import io
import os
import random
import secrets
import socket
import subprocess
import threading
import time
import uuid
from typing import Any

_TIME = "the clocks of replicas differ; use self.now"
_RANDOM = "each replica would draw another number; use self.random, or self.uuid() for a UUID"
_IO = "every replica would do this, with another result; do it before the command, and pass what it gives"
_HASH = "it differs between processes; use the value itself, or hashlib"
_HEAP = "it changes a list of the state without the state machine; use bisect.insort and pop, or sort"
_WAIT = "a command is executed at once, while nothing else is"

_REASONS: dict[str, tuple[Any, ...]] = {
    _TIME: (
        *(getattr(time, name) for name in dir(time) if name.startswith(("time", "monotonic", "perf_", "process_"))),
        time.localtime,
        time.gmtime,
        time.ctime,
        datetime.datetime.now,
        datetime.datetime.utcnow,
        datetime.datetime.today,
        datetime.date.today,
    ),
    _RANDOM: (
        *(one for name in random.__all__ if callable(one := getattr(random, name))),
        uuid.uuid1,
        uuid.uuid4,
        uuid.getnode,
        os.urandom,
        os.getpid,
        *(one for name in secrets.__all__ if callable(one := getattr(secrets, name)) and name != "compare_digest"),
    ),
    _IO: (
        open,
        io.open,
        os.open,
        os.getenv,
        os.listdir,
        os.stat,
        input,
        socket.socket,
        socket.create_connection,
        subprocess.Popen,
        subprocess.run,
    ),
    _HASH: (id, hash),
    _HEAP: (heapq.heappush, heapq.heappop, heapq.heapify, heapq.heapreplace, heapq.heappushpop),
    _WAIT: (time.sleep, threading.Thread, threading.Lock),
}


def _key(one: Any) -> object:
    """What identifies a callable: a bound method is made anew at each access."""
    owner = getattr(one, "__self__", None)
    if owner is not None and not isinstance(owner, type(os)):
        return (id(owner), getattr(one, "__name__", ""))
    return id(one)


_BY_KEY = {_key(one): reason for reason, several in _REASONS.items() for one in several if callable(one)}
_DRAWS = frozenset({"random", "getrandbits"})
_HARMLESS_CALLERS = (
    "logging",
    "warnings",
    "traceback",
    "linecache",
    "importlib",
    "reprlib",
    "hypothesis",
    "gc",
    "heapq",
)
"""Modules that read clocks and files for the people who develop a command, and not for its result."""


def reason_against(called: Any) -> str | None:
    """Why a command must not call this; None if nothing is known against it."""
    try:
        return _BY_KEY.get(_key(called))
    except TypeError:
        return None


def reason_against_builtin(called: Any, caller: str, agreed: random.Random | None) -> str | None:
    """The same for a builtin function that is being called, in a module of the name `caller`.

    `agreed` is the source that the command may use. `id` and `hash` are allowed: dictionaries use them.
    """
    if caller.partition(".")[0] in _HARMLESS_CALLERS:
        return None
    owner = getattr(called, "__self__", None)
    if isinstance(owner, random.Random) and owner is not agreed and called.__name__ in _DRAWS:
        return _RANDOM if owner is _SHARED or isinstance(owner, random.SystemRandom) else None
    reason = reason_against(called)
    return None if reason is _HASH else reason


_SHARED = getattr(random.random, "__self__")  # noqa: B009 - it is not in the types
