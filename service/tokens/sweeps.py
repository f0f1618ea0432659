"""What time does to tokens: those that end soon are told of in the server's log, for whoever watches it, once a day.

The line is there when there are none too, so that its absence says something.
"""

from typing import Any

import structlog

from backends.protocol import EVERY, Row, Tx
from service.kernel.sweeps import Sweep
from service.tokens.model import DAY_MS

log = structlog.get_logger()
TENANTS = 100
"""Tenants that a line names, those with most tokens first."""


async def tell_of_ends(services: Any) -> None:
    """How many tokens end within the days of the settings, altogether and by tenant."""
    days = services.settings.token_warning_days

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("count_ending_tokens", now=tx.now, before=tx.now + days * DAY_MS, limit=TENANTS)

    rows = await services.backend.read(read, tenants=EVERY, scan=True)
    tokens, tenants = rows[0][2:] if rows else (0, 0)
    by_tenant = {tenant_id or "system": count for tenant_id, count, *_ in rows}
    log.info("tokens end soon", days=days, tokens=tokens, tenants=tenants, by_tenant=by_tenant)


SWEEPS = [Sweep("tokens.ends", DAY_MS, tell_of_ends)]
