"""The sweep that rings alarms: a page of what is due at a time, each alarm a command, which the kernel gathers."""

import asyncio
from typing import Any

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.alarms.model import RingAlarm
from service.kernel.principal import internal
from service.kernel.run import Kernel
from service.kernel.sweeps import Sweep

PAGE = 1_000


async def due(backend: StateBackend) -> list[Row]:
    """The alarms whose time has come, of all tenants, the most overdue first: tenant, owner, name."""

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("due_alarms", now=tx.now, limit=PAGE)

    return await backend.read(read, tenants=EVERY)


async def ring_due(backend: StateBackend, kernel: Kernel) -> int:
    """Ring what is due, until nothing of a page rings; how many rang. One that cannot ring holds up no other, and the
    first such error is raised at the end."""
    rang, errors = 0, list[BaseException]()
    while page := await due(backend):
        told = await asyncio.gather(
            *(kernel.run(internal(row[0]), RingAlarm(row[1], row[2])) for row in page), return_exceptions=True
        )
        errors += [one for one in told if isinstance(one, BaseException)]
        now = sum(one is True for one in told)
        rang += now
        if now == 0 or len(page) < PAGE:
            break
    if errors:
        raise errors[0]
    return rang


async def ring(services: Any) -> None:
    """Ring what is due."""
    await ring_due(services.backend, services.kernel)


SWEEPS = [Sweep("alarms.ring", 0, ring)]
