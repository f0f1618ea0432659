"""Being told to end by a signal, from the first moment of a process to its last."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Being told to end, by SIGINT, SIGTERM or SIGHUP: what was begun is put away in order, and that is no failure.

    Until there is a way of its own to end (`by`, given the signal) the work is cancelled, wherever it waits; once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._told = loop, False
        self._work: asyncio.Task[Any] | None = None
        self.by: Callable[[int], object] | None = None

    @contextlib.contextmanager
    def heeded(self) -> Iterator["Ending"]:
        """Signals are heeded meanwhile; but SIGHUP is not where it is ignored (nohup)."""
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        heeded = [one for one in ENDS if not (ignored and one == signal.SIGHUP)]
        before = {one: signal.signal(one, self._hear) for one in heeded}
        try:
            yield self
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    async def of(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` to its end, or until it is told to end."""
        if self._told:
            return work.close()
        self._work = asyncio.current_task()
        try:
            await work
        except asyncio.CancelledError:
            if not self._told:
                raise

    def _hear(self, number: int, _frame: Any) -> None:
        self._loop.call_soon_threadsafe(self._obey, number)

    def _obey(self, number: int) -> None:
        again, self._told = self._told, True
        if self.by is not None:
            self.by(number)
        elif self._work is not None and not again:
            self._work.cancel()
