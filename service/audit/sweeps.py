"""What time does to audit logs: lines past their retention go, page by page, and a line tells of each page."""

from typing import Any

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.kernel.chain import trim
from service.kernel.jobs import PAGES_A_ROUND
from service.kernel.principal import SYSTEM
from service.kernel.sweeps import Sweep

DAY_MS, MINUTE_MS = 86_400_000, 60_000
CHAINS = 100


async def let_go(services: Any) -> None:
    """Trim chains to the days that the settings keep, some pages a round; 0 days keep everything."""
    days = services.settings.audit_days
    if not days:
        return
    before = services.backend.now() - days * DAY_MS
    pages, names = PAGES_A_ROUND, [SYSTEM]
    while names and pages > 0:
        for name in names:
            while pages > 0 and await trimmed(services.backend, name, before):
                pages -= 1
        names = await old(services.backend, names[-1], before)


async def trimmed(backend: StateBackend, tenant_id: str, before: int) -> int:
    """One page of one chain; how many lines went."""

    async def work(tx: Tx) -> int:
        return await trim(tx, tenant_id, before)

    return await backend.write(work, tenants=[tenant_id])


async def old(backend: StateBackend, after: str, before: int) -> list[str]:
    """The next chains, by tenant, whose oldest line is older than `before`."""

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("audit_to_trim", after=after, before=before, limit=CHAINS)

    return [name for (name,) in await backend.read(read, tenants=EVERY, scan=True)]


SWEEPS = [Sweep("audit.trim", MINUTE_MS, let_go)]
