"""When tokens were last used: noted as they pass, and written down later by a task of this process."""

import asyncio
import contextlib

from backends.errors import StoreError
from service.errors import StateError
from service.kernel.principal import Principal, internal
from service.kernel.run import Kernel
from service.tokens.model import UseToken

EVERY_MS = 300_000
FLUSH_SECONDS = 15.0
NOTED_MAX = 100_000
PAGE = 64
CLOSE_SECONDS = 2.0


class Uses:
    """`note` costs a look into a dictionary; a token's use is written at most every five minutes."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._noted: dict[str, int] = {}
        self._used: dict[tuple[str, str], int] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, who: Principal, now: int) -> None:
        """Remember that the token of `who` was used at `now` (milliseconds)."""
        if who.token_id is None or abs(now - self._noted.get(who.token_id, 0)) < EVERY_MS:
            return
        if len(self._noted) >= NOTED_MAX:
            self._noted.clear()
        self._noted[who.token_id] = now
        if len(self._used) < NOTED_MAX:
            self._used[who.token_tenant, who.token_id] = now
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._later())

    async def flush(self) -> None:
        """Write what was noted since the last time; what cannot be written now is lost: it is no more than a hint."""
        used, self._used = self._used, {}
        made = [UseToken(tenant_id, token_id, at) for (tenant_id, token_id), at in used.items()]
        for start in range(0, len(made), PAGE):  # a few at a time: requests stand in the same line
            await asyncio.gather(*(self._write(one) for one in made[start : start + PAGE]))

    async def _write(self, use: UseToken) -> None:
        with contextlib.suppress(StateError, StoreError):  # the token went with its tenant, or the store is away
            await self.kernel.run(internal(use.tenant_id), use)

    async def _later(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)
        self._task = None
        await self.flush()

    async def close(self) -> None:
        """Write what is left, and begin nothing more."""
        if self._task is not None:
            self._task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.flush()
