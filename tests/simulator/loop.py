"""An event loop that stands still: what is ready runs when it is told to, in the order in which it came ready.

Each simulated process has its own. Nothing in it looks at a clock, a socket or a thread.
"""

import asyncio
import contextlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any


class Loop(asyncio.AbstractEventLoop):
    """As much of a loop as futures and tasks ask for."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._later: list[asyncio.Handle] = []

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, **_: Any) -> asyncio.Handle:  # type: ignore[override]
        """A moment is no reason to wait: it is over as soon as what is ready has run. A second and more is over when
        the world says so."""
        if delay < 1:
            return self.call_soon(callback, *args)
        self._later.append(asyncio.Handle(callback, args, self))
        return self._later[-1]

    def pass_time(self) -> None:
        """All that was to be later is ready."""
        self._ready += self._later
        self._later.clear()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **_: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        return asyncio.Task(coro, loop=self)

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task that its dead process left behind is nobody's loss."""

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def drain(self) -> None:
        """Run until nothing is ready."""
        if not self._ready:
            return
        with running(self):
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()


@contextlib.contextmanager
def running(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """`loop` is the one that code finds running."""
    before = events._get_running_loop()
    events._set_running_loop(loop)
    try:
        yield
    finally:
        events._set_running_loop(before)
