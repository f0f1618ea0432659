"""What time does to the service's own rows: old idempotency keys go, uses of tokens are written down."""

from typing import Any

from backends.protocol import Tx
from service.kernel.sweeps import Sweep

HOUR_MS = 3_600_000
PAGE = 1_000


async def expire_keys(services: Any) -> None:
    """Forget idempotency keys past their promise, page by page."""
    before = services.backend.now() - services.settings.idempotency_hours * HOUR_MS

    async def expire(tx: Tx) -> int:
        return await tx.run("expire_idempotency_keys", before=before, limit=PAGE)

    while await services.backend.write(expire) == PAGE:
        pass


async def note_uses(services: Any) -> None:
    """Write down when tokens were last used."""
    await services.tokens.flush_uses()


SWEEPS = [Sweep("idempotency.expire", 600_000, expire_keys), Sweep("tokens.uses", 30_000, note_uses)]
