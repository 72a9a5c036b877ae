"""An event loop in a thread of its own, for programs without asyncio."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from pydsm.client.outcomes import ClientClosed, OutcomeUnknown
from pydsm.library.handles import M, class_of

M_co = TypeVar("M_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")


class Opened(Protocol[M_co]):
    """A `Replica` or `Connection`."""

    async def start(self) -> M_co:
        """Returns the object to call."""
        ...

    async def stop(self) -> None:
        """Idempotent."""
        ...


class LoopThread:
    """A thread with a loop. `run` may be called from any other thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine in the loop, and wait for it. Raises ClientClosed before `start` and after `close`."""
        with self._lock:
            if self._closed or not self._thread.is_alive():
                work.close()
                raise ClientClosed("it is closed, or was never opened: use it as a context manager")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and the thread. Idempotent."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()


class BlockingHandle(Generic[M]):
    """Has a method for each command and query of a class, which waits for the result; from any thread.

    A type checker does not know those methods; `call` is the same with types:

        inventory.take("bolt", 1)
        inventory.call(Inventory.take, "bolt", 1)
    """

    def __init__(self, cls: type[M], target: M, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._run = run
        self._cls = cls
        self._attributes = {method.function: name for name, method in cls._declaration.methods.items()}
        for name in cls._declaration.methods:
            self.__dict__[name] = self._blocking(getattr(target, name))

    def _blocking(self, call: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        def blocking(*arguments: Any, **named: Any) -> Any:
            return self._run(call(*arguments, **named))

        blocking.__name__, blocking.__doc__ = call.__name__, call.__doc__
        return blocking

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"{self._cls.__name__} has no command or query {name}")

    def call(self, method: Callable[Concatenate[M, P], R], *arguments: P.args, **named: P.kwargs) -> R:
        """Execute a command or query of the class, such as `Inventory.take`, with these arguments."""
        result: R = self.__dict__[self._attributes[method]](*arguments, **named)
        return result

    def again(self, unknown: OutcomeUnknown, *, timeout: float | None = None) -> Any:
        """The result of a command whose outcome was unknown; see `OutcomeUnknown.again`."""
        return self._run(unknown.again(timeout=timeout))


class Blocking(Generic[M]):
    """A `Replica` or `Connection` for programs without asyncio, as a context manager; from any thread."""

    def __init__(self, cls: type[M], opened: Opened[M], name: str) -> None:
        self._cls = class_of(cls)
        self._opened = opened
        self._thread = LoopThread(name)

    def __enter__(self) -> BlockingHandle[M]:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> BlockingHandle[M]:
        """Start it, and return the object to call. Use `stop` in the end."""
        self._thread.start()
        try:
            target = self._thread.run(self._opened.start())
        except BaseException:
            self._thread.close()
            raise
        return BlockingHandle(self._cls, target, self._thread.run)

    def stop(self) -> None:
        """Stop it; calls that wait in other threads fail. Idempotent."""
        try:
            self._thread.run(self._opened.stop())
        except ClientClosed:
            return
        finally:
            self._thread.close()
