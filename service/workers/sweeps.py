"""What time does to workers: those that were lost long ago are forgotten."""

from typing import Any

from backends.protocol import EVERY, Tx
from service.kernel.principal import SYSTEM, internal
from service.kernel.sweeps import Sweep
from service.workers.model import LOST_MS, ReapWorkers

PAGE = 500


async def reap(services: Any) -> None:
    """Forget lost workers, page by page."""

    async def any_lost(tx: Tx) -> bool:
        return bool(await tx.all("lost_workers", before=tx.now - LOST_MS, limit=1))

    while await services.backend.read(any_lost, tenants=EVERY):
        if await services.kernel.run(internal(SYSTEM), ReapWorkers(PAGE)) < PAGE:
            return


SWEEPS = [Sweep("workers.reap", 5_000, reap)]
