"""The native client for programs without an event loop; it runs the asyncio client in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import TypeVar
from uuid import UUID

from pydsm.client.calls import CallOutcome
from pydsm.client.client import Client
from pydsm.client.limits import ClientLimits
from pydsm.client.outcomes import ClientClosed
from pydsm.machines.base import Result
from pydsm.transport.address import Address

Given = TypeVar("Given")


class BlockingClient:
    """A blocking client, for any number of threads. Use it as a context manager.

    Arguments, results and exceptions are those of `Client`.
    """

    def __init__(
        self,
        addresses: Sequence[str | Address],
        *,
        prefer: str | Address | None = None,
        group: str = "",
        limits: ClientLimits | None = None,
    ) -> None:
        self._client = Client(addresses, prefer=prefer, group=group, limits=limits)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pydsm-client", daemon=True)
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> "BlockingClient":
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect; calls waiting in other threads fail with `ClientClosed`. Idempotent."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def execute(
        self,
        command: bytes,
        *,
        timeout_seconds: float | None = None,
        on_request_id: Callable[[UUID], None] | None = None,
    ) -> Result:
        """See `Client.execute`. `on_request_id` is called in the thread of the client."""
        return self._run(self._client.execute(command, timeout_seconds=timeout_seconds, on_request_id=on_request_id))

    def execute_many(self, commands: Sequence[bytes], *, timeout_seconds: float | None = None) -> list[CallOutcome]:
        """See `Client.execute_many`."""
        return self._run(self._client.execute_many(commands, timeout_seconds=timeout_seconds))

    def _run(self, work: Coroutine[object, object, Given]) -> Given:
        with self._lock:
            if self._closed or not self._thread.is_alive():
                work.close()
                raise ClientClosed("the client is closed, or was never entered: use it as a context manager")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
