"""What time does to the service's own rows: old idempotency keys go, tallies are folded."""

from typing import Any

from backends.protocol import EVERY, Tx
from service.kernel.sweeps import Sweep
from service.kernel.tallies import fold

HOUR_MS = 3_600_000
PAGE = 1_000


async def expire_keys(services: Any) -> bool:
    """Forget a page of idempotency keys past their promise; whether it was full."""
    before = services.backend.now() - services.settings.idempotency_hours * HOUR_MS

    async def expire(tx: Tx) -> int:
        return await tx.run("expire_idempotency_keys", before=before, limit=PAGE)

    return bool(await services.backend.write(expire, tenants=EVERY) == PAGE)


async def fold_tallies(services: Any) -> None:
    """Fold what commits have said of their executions into the totals."""
    await fold(services.backend)


SWEEPS = [Sweep("idempotency.expire", 600_000, expire_keys), Sweep("tallies.fold", 1_000, fold_tallies)]
