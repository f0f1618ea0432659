"""The thread that commits: the sync to disk is waited for there, and the event loop goes on meanwhile."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

Then = Callable[[BaseException | None], None]
"""Called in the loop with what was raised, or None."""


class Committer:
    """Does one thing after another. An executor would do it too, with futures and turns of the loop in between."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.AbstractEventLoop, Then] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="holdfast-commit", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], Any], then: Then) -> None:
        """Have `work` done in the thread, and the running loop told."""
        self._jobs.put((work, asyncio.get_running_loop(), then))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, loop, then = job
            try:
                work()
            except BaseException as error:
                loop.call_soon_threadsafe(then, error)
            else:
                loop.call_soon_threadsafe(then, None)
            del job, work, then  # nothing is kept alive until there is more to do

    def close(self) -> None:
        """Wait for what was asked for, and end."""
        self._jobs.put(None)
        self._thread.join()
