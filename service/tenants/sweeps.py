"""What time does to a tenant that is being deleted: its rows go, page by page, and the tenant itself last.

Every page looks at every table again, so a row that a transaction under way at the closing of the tenant still brought
is found too. The tenant goes when nothing was found for so much time that no such transaction can be left, and that no
process remembers anything of it: also a request that is refused reads what it asks for, as long as it is there.
"""

from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.errors import TooSlow
from backends.protocol import Row, StateBackend, Tx
from service.kernel.chain import add
from service.kernel.jobs import PAGES_A_ROUND, Job, pages_of, write
from service.kernel.principal import SYSTEM
from service.kernel.sweeps import Sweep
from service.tenants.model import DEFAULT, IMPORT_JOB, Erasing
from service.tenants.rules import DELETE_JOB

KINDS = (DELETE_JOB, IMPORT_JOB)
PAGE = 500
QUIET_MS = 60_000


async def erase(services: Any) -> None:
    """Work on deletions that are due: a page of each in turn. One whose page fails holds up no other."""
    pages = 0
    while pages < PAGES_A_ROUND and (jobs := await leaving(services.backend)):
        took = await pages_of(jobs, partial(page, services.backend))
        pages += took.found if took.done else PAGES_A_ROUND


async def leaving(backend: StateBackend) -> list[Job]:
    """The jobs that take rows away and are due: deletions, and imports that were given up or did not go on in time.
    They are the system's: a row that an import brought to a tenant is none, whatever it says."""

    async def read(tx: Tx, kind: str) -> list[Row]:
        return await tx.all("due_jobs_of_tenant", tenant_id=SYSTEM, now=tx.now, kind=kind, limit=PAGES_A_ROUND)

    found = [await backend.read(partial(read, kind=kind), tenants=[SYSTEM]) for kind in KINDS]
    return [Job(*row) for rows in found for row in rows]


async def page(backend: StateBackend, job: Job) -> None:
    """One page: up to `PAGE` rows of the tenant's tables, and the job moved on, in one transaction."""
    tenant_id = msgspec.json.decode(job.detail, type=Erasing).tenant_id
    total = job.total or await rows_of(backend, tenant_id)

    async def work(tx: Tx) -> None:
        [row] = await tx.all("load_jobs", rows=[(SYSTEM, job.id)])
        found = Job(*row)
        if found.status == "running" and found.due_at <= tx.now:
            await tx.run("close_import", tenant_id=tenant_id)
            await write(tx, found, await move(tx, replace(found, total=total), tenant_id))

    await backend.write(work, tenants=[SYSTEM, tenant_id])


async def move(tx: Tx, job: Job, tenant_id: str) -> Job:
    """Take rows away; when there were none for long enough, the tenant itself. The job is changed when rows go."""
    gone = await take(tx, tenant_id)
    importing = job.kind == IMPORT_JOB  # its counts are those of what came
    if gone:
        done = job.done if importing else job.done + gone
        return replace(job, done=done, total=max(job.total, done), due_at=tx.now, updated_at=tx.now)
    if tx.now < job.updated_at + QUIET_MS:
        return replace(job, due_at=job.updated_at + QUIET_MS)
    if not (tenant_id == DEFAULT and await tx.run("empty_tenant", tenant_id=tenant_id, name=DEFAULT, now=tx.now)):
        await tx.run("erase_tenants", tenant_id=tenant_id, limit=1)
    await add(tx, SYSTEM, "tenant.deleted", tenant_id)
    job = replace(job, updated_at=tx.now)
    return replace(job, status="failed") if importing else replace(job, status="completed", total=job.done)


async def rows_of(backend: StateBackend, tenant_id: str) -> int:
    """How many rows a tenant has beside its own, counted up to a million a table; 1 where that takes longer than a scan
    may: then the total is what has gone."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("count_tenant_rows", tenant_id=tenant_id)

    try:
        row = await backend.read(read, tenants=[tenant_id], scan=True)
    except TooSlow:
        return 1
    return 0 if row is None else int(row[0]) - 1


async def take(tx: Tx, tenant_id: str) -> int:
    """Delete a page of a tenant's rows, whatever tables they are in; how many went."""
    left = PAGE
    for (table,) in await tx.all("tenant_tables"):
        if left and table != "tenants":
            left -= await tx.run(f"erase_{table}", tenant_id=tenant_id, limit=left)
    return PAGE - left


SWEEPS = [Sweep("tenants.erase", 0, erase)]
