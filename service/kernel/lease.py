"""The lease of the sweeps: which process sweeps, one row in the database, held for a while and renewed.

Every holder has an epoch of its own, one more than that of the holder before. Renewing and releasing name it, so a
process that was paused past its time can neither keep the lease from its successor nor give that one's away. A holder
believes in its lease from before it asked for it, which ends no later than the row says. On SQLite one process owns the
file, and nobody asks.
"""

import asyncio
import os
import socket
import uuid

import msgspec
import structlog

from backends.protocol import Row, StateBackend, Tx
from service.kernel.principal import SYSTEM

log = structlog.get_logger()
NAME = "sweeps"
CHANNEL = "sweeps/lease"
"""Woken when the lease is let go of."""
LEASE_MS = 3_000


class Holding(msgspec.Struct, frozen=True):
    """Who sweeps, since when, until when unless it goes on; SQLite's only process has no end."""

    holder: str
    epoch: int
    since: int
    expires_at: int | None


class Lease:
    """One process's hand on the lease."""

    def __init__(self, backend: StateBackend, lease_ms: int = LEASE_MS, holder: str | None = None) -> None:
        self.holder = holder or called()
        self._backend, self._lease_ms = backend, lease_ms
        self._alone = backend.name == "sqlite"
        self._epoch, self._until, self._began = 0, 0, 0
        self._asked = 0
        """The epoch that was asked for last: it may be ours though the answer never came."""
        self._asking = asyncio.Lock()

    @property
    def held(self) -> bool:
        """Whether this process may sweep at this moment. More left than was asked for: the clock was set back."""
        return self._alone or 0 < self._until - self._backend.now() <= self._lease_ms

    async def keep(self) -> bool:
        """Take the lease if it is free, renew it when half of its time is over; whether it is held."""
        if self._alone:
            self._began = self._began or self._backend.now()
            return True
        async with self._asking:
            if not (self.held and self._until - self._backend.now() > self._lease_ms // 2):
                await (self._renew() if self._epoch else self._take())
        return self.held

    async def release(self) -> None:
        """Let go at once, so that the next process need not wait."""
        if self._alone or not self._asked:
            return

        async def let_go(tx: Tx) -> None:
            if await tx.many("release_sweep", [(SYSTEM, NAME, self.holder, self._asked)]):
                tx.wake(CHANNEL)

        await self._backend.write(let_go, tenants=[SYSTEM])
        self._epoch, self._until, self._asked = 0, 0, 0

    async def _renew(self) -> None:
        now = self._backend.now()

        async def renew(tx: Tx) -> int:
            return await tx.many("renew_sweep", [(SYSTEM, NAME, self.holder, self._epoch, tx.now + self._lease_ms)])

        if await self._backend.write(renew, tenants=[SYSTEM]):
            self._until = now + self._lease_ms
        else:
            log.warning("another process sweeps now", epoch=self._epoch)
            self._epoch, self._until, self._asked = 0, 0, 0

    async def _take(self) -> None:
        now, found = self._backend.now(), await read(self._backend)
        if found is not None and found.holder != self.holder and (found.expires_at or 0) > now:
            return
        before = 0 if found is None else found.epoch
        self._asked = before + 1

        async def take(tx: Tx) -> int:
            return await tx.run(
                "take_sweep", tenant_id=SYSTEM, name=NAME, holder=self.holder, epoch=before + 1, was_epoch=before,
                now=tx.now, expires_at=tx.now + self._lease_ms,
            )  # fmt: skip

        if await self._backend.write(take, tenants=[SYSTEM]):
            self._epoch, self._until = before + 1, now + self._lease_ms
            log.info("this process sweeps", epoch=self._epoch)

    async def holding(self) -> Holding | None:
        """Who sweeps now, of all processes; None when nobody does."""
        if self._alone:
            return Holding(self.holder, 1, self._began, None) if self._began else None
        found, now = await read(self._backend), self._backend.now()
        return found if found is not None and (found.expires_at or 0) > now else None


async def read(backend: StateBackend) -> Holding | None:
    """The lease as the database has it, whether its time still runs or not."""

    async def ask(tx: Tx) -> Row | None:
        return await tx.one("read_sweep", tenant_id=SYSTEM, name=NAME)

    row = await backend.read(ask, tenants=[SYSTEM])
    return None if row is None else Holding(*row)


def called() -> str:
    """A name for this process, which no other has: host, process id, chance."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
