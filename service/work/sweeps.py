"""What time does to work: leases run out, delayed items become due, redrives go on."""

from functools import partial
from typing import Any

from backends.protocol import EVERY, Tx
from service.kernel.jobs import in_turn
from service.kernel.principal import SYSTEM, internal
from service.kernel.rota import Line, Took, in_turns
from service.kernel.sweeps import Sweep
from service.work.model import REDRIVE_JOB, PromoteDue, ReclaimLeases
from service.work.redrive import page

PAGE = 500
RATES_KEPT_MS = 120_000


async def reclaim(services: Any) -> bool:
    """Take back a page of what ran out."""

    async def take(tenant_id: str, limit: int) -> Took:
        if tenant_id == SYSTEM and not await is_any(services, "expired_leases"):
            return Took(0, 0)
        taken = await services.kernel.run(internal(tenant_id), ReclaimLeases(limit))
        count = len(taken.retryable) + len(taken.exhausted)
        return Took(count, count)

    line = services.lines.setdefault("leases", Line())
    return (await in_turns(services.backend, line, "tenants_with_expired_leases", take, PAGE)).more


async def promote(services: Any) -> bool:
    """Move a page of what has become due onto the ready shelves."""

    async def take(tenant_id: str, limit: int) -> Took:
        if tenant_id == SYSTEM and not await is_any(services, "due_items"):
            return Took(0, 0)
        count = await services.kernel.run(internal(tenant_id), PromoteDue(limit))
        return Took(count, count)

    line = services.lines.setdefault("delayed", Line())
    return (await in_turns(services.backend, line, "tenants_with_due_items", take, PAGE)).more


async def is_any(services: Any, statement: str) -> bool:
    """Whether anything is due: a read, so that a round without work writes nothing."""

    async def read(tx: Tx) -> bool:
        return bool(await tx.all(statement, now=tx.now, limit=1))

    return bool(await services.backend.read(read, tenants=EVERY))


async def redrive(services: Any) -> None:
    """Work on redrives that are due: a page of each in turn."""
    line = services.lines.setdefault("redrives", Line())
    await in_turn(
        services.backend,
        line,
        REDRIVE_JOB,
        "tenants_with_due_redrives",
        partial(page, services.backend, services.kernel),
    )


async def forget_rates(services: Any) -> bool:
    """Delete a page of what no rate is counted from any more; whether it was full."""
    before = services.backend.now() - RATES_KEPT_MS

    async def forget(tx: Tx) -> int:
        return await tx.run("expire_queue_rates", before=before, limit=PAGE)

    return bool(await services.backend.write(forget, tenants=EVERY) == PAGE)


SWEEPS = [
    Sweep("work.reclaim", 0, reclaim),
    Sweep("work.promote", 0, promote),
    Sweep("work.redrive", 0, redrive),
    Sweep("work.rates", 60_000, forget_rates),
]
