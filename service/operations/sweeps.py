"""What time does to the service's own rows: old idempotency keys go."""

from typing import Any

from backends.protocol import EVERY, Tx
from service.kernel.sweeps import Sweep

HOUR_MS = 3_600_000
PAGE = 1_000


async def expire_keys(services: Any) -> None:
    """Forget idempotency keys past their promise, page by page."""
    before = services.backend.now() - services.settings.idempotency_hours * HOUR_MS

    async def expire(tx: Tx) -> int:
        return await tx.run("expire_idempotency_keys", before=before, limit=PAGE)

    while await services.backend.write(expire, tenants=EVERY) == PAGE:
        pass


SWEEPS = [Sweep("idempotency.expire", 600_000, expire_keys)]
