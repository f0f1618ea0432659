"""Sweeps: what happens because time passes. Each is a command like any other, run by the service for itself.

On Postgres one process at a time sweeps, held by a lease in the database; a process that dies is followed by another
within the lease. A sweep that finds nothing costs a read, not a write.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from backends.errors import StoreError
from backends.protocol import StateBackend, Tx
from service.errors import StateError
from service.kernel.principal import SYSTEM

log = structlog.get_logger()
LEASE_MS = 4_000


class Sweep(msgspec.Struct, frozen=True):
    """`run(services)` does one round; `every_ms` apart."""

    name: str
    every_ms: int
    run: Callable[[Any], Awaitable[None]]


class Sweeper:
    """Runs sweeps while it holds the lease."""

    def __init__(self, backend: StateBackend, services: Any, sweeps: Sequence[Sweep], interval_ms: int) -> None:
        self.backend, self.services, self.sweeps = backend, services, sweeps
        self._interval_ms = interval_ms
        self._me = uuid.uuid4().hex
        self._held_until = 0
        self._due: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sweep in the background."""
        self._task = asyncio.create_task(self._forever())

    async def close(self) -> None:
        """Stop; the lease runs out by itself."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_ms / 1000)
            try:
                await self.round()
            except StoreError as error:
                log.warning("the sweeps were put off", error=str(error))
            except Exception:
                log.exception("the sweeps failed")

    async def round(self) -> None:
        """Everything that is due, if this process holds the lease. A sweep that fails does not keep others waiting."""
        for sweep in self.sweeps:
            now = self.backend.now()
            if 0 < self._due.get(sweep.name, 0) - now <= sweep.every_ms:  # further ahead: the clock was set back
                continue
            if not await self._hold():
                return
            self._due[sweep.name] = now + sweep.every_ms
            await self._run(sweep)

    async def _run(self, sweep: Sweep) -> None:
        try:
            await sweep.run(self.services)
        except (StoreError, StateError) as error:
            log.warning("a sweep was put off", sweep=sweep.name, error=str(error))
        except Exception:
            log.exception("a sweep failed", sweep=sweep.name)

    async def _hold(self) -> bool:
        """Whether this process sweeps. On SQLite there is no other; the lock file says so."""
        if self.backend.name == "sqlite":
            return True
        now = self.backend.now()
        if self._held_until - LEASE_MS <= now < self._held_until - LEASE_MS // 2:
            return True

        async def take(tx: Tx) -> int:
            return await tx.run(
                "take_sweep", tenant_id=SYSTEM, name="sweeps", holder=self._me, now=tx.now, expires_at=tx.now + LEASE_MS
            )

        held = await self.backend.write(take, tenants=[SYSTEM]) == 1
        self._held_until = now + LEASE_MS if held else 0
        return held
