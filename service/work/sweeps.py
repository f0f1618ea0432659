"""What time does to work: leases run out, delayed items become due."""

from typing import Any

from backends.protocol import Tx
from service.kernel.principal import SYSTEM, internal
from service.kernel.sweeps import Sweep
from service.work.model import PromoteDue, ReclaimLeases

PAGE = 500


async def reclaim(services: Any) -> None:
    """Take back what ran out, page by page."""

    async def any_expired(tx: Tx) -> bool:
        return bool(await tx.all("expired_leases", now=tx.now, limit=1))

    while await services.backend.read(any_expired):
        taken = await services.kernel.run(internal(SYSTEM), ReclaimLeases(PAGE))
        if len(taken.retryable) + len(taken.exhausted) < PAGE:
            return


async def promote(services: Any) -> None:
    """Move what has become due onto the ready shelves."""

    async def any_due(tx: Tx) -> bool:
        return bool(await tx.all("due_items", now=tx.now, limit=1))

    while await services.backend.read(any_due):
        if await services.kernel.run(internal(SYSTEM), PromoteDue(PAGE)) < PAGE:
            return


SWEEPS = [Sweep("work.reclaim", 0, reclaim), Sweep("work.promote", 0, promote)]
