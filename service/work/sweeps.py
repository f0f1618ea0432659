"""What time does to work: leases run out, delayed items become due, redrives go on."""

from typing import Any

from backends.protocol import EVERY, Tx
from service.kernel.jobs import PAGES_A_ROUND, due
from service.kernel.principal import SYSTEM, internal
from service.kernel.sweeps import Sweep
from service.work.model import REDRIVE_JOB, PromoteDue, ReclaimLeases
from service.work.redrive import page

PAGE = 500


async def reclaim(services: Any) -> None:
    """Take back what ran out, page by page."""

    async def any_expired(tx: Tx) -> bool:
        return bool(await tx.all("expired_leases", now=tx.now, limit=1))

    while await services.backend.read(any_expired, tenants=EVERY):
        taken = await services.kernel.run(internal(SYSTEM), ReclaimLeases(PAGE))
        if len(taken.retryable) + len(taken.exhausted) < PAGE:
            return


async def promote(services: Any) -> None:
    """Move what has become due onto the ready shelves."""

    async def any_due(tx: Tx) -> bool:
        return bool(await tx.all("due_items", now=tx.now, limit=1))

    while await services.backend.read(any_due, tenants=EVERY):
        if await services.kernel.run(internal(SYSTEM), PromoteDue(PAGE)) < PAGE:
            return


async def redrive(services: Any) -> None:
    """Work on redrives that are due: a page of each in turn."""
    pages = 0
    while pages < PAGES_A_ROUND and (jobs := await due(services.backend, REDRIVE_JOB)):
        for job in jobs:
            await page(services.backend, services.kernel, job)
        pages += len(jobs)


SWEEPS = [Sweep("work.reclaim", 0, reclaim), Sweep("work.promote", 0, promote), Sweep("work.redrive", 0, redrive)]
