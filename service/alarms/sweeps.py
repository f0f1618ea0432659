"""The sweep that rings alarms, page by page."""

from typing import Any

from backends.protocol import Tx
from service.alarms.model import RingAlarms
from service.kernel.principal import SYSTEM, internal
from service.kernel.sweeps import Sweep

PAGE = 500


async def ring(services: Any) -> None:
    """Ring what is due."""

    async def any_due(tx: Tx) -> bool:
        return bool(await tx.all("due_alarms", now=tx.now, limit=1))

    while await services.backend.read(any_due):
        if await services.kernel.run(internal(SYSTEM), RingAlarms(PAGE)) < PAGE:
            return


SWEEPS = [Sweep("alarms.ring", 0, ring)]
