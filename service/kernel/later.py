"""What is written down a while after it was noted: once for all that was noted meanwhile, and at the end at once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

CLOSE_SECONDS = 2.0
"""How long the end waits for the last of it."""


class Later:
    """Runs `do` some seconds after the first `soon`, however many follow."""

    def __init__(self, do: Callable[[], Awaitable[None]], seconds: float) -> None:
        self._do, self._seconds = do, seconds
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """There is something to do."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        await asyncio.sleep(self._seconds)
        self._task = None
        await self._do()

    async def close(self) -> None:
        """Do what is left, and begin nothing more."""
        if self._task is not None:
            self._task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._do()
