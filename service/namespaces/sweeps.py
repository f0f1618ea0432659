"""What time does to a namespace that is being deleted: its rows go, page by page, and the namespace itself last.

A page is one transaction that moves the job with it, so a process that dies leaves the job where its last page ended.
Nothing new comes meanwhile, for whatever is made in a namespace first holds its row. The namespace goes when nothing
was found and a minute has passed: by then no process remembers a shelf of it.
"""

from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.protocol import StateBackend, Tx
from service.kernel.chain import add
from service.kernel.jobs import Job, in_turn, write
from service.kernel.removal import Going, take_out
from service.kernel.rota import Line
from service.kernel.sweeps import Sweep
from service.namespaces.model import DELETE_JOB, Emptying

PAGE, EXECUTIONS = 500, 100
QUIET_MS = 60_000
BEFORE = ("alarms", "schedule_runs", "schedules")
"""What goes before the executions: then nothing is left that would start one."""
AFTER = ("worker_queues", "workers", "shelves", "queues", "tally_changes", "tallies")


async def erase(services: Any) -> None:
    """Work on deletions that are due: a page of each in turn."""
    line = services.lines.setdefault("namespaces", Line())
    await in_turn(
        services.backend, line, DELETE_JOB, "tenants_with_due_deletions_of_namespaces", partial(page, services.backend)
    )


async def page(backend: StateBackend, job: Job) -> None:
    """One page: up to `PAGE` rows, and the job moved on, in one transaction."""

    async def work(tx: Tx) -> None:
        found = [Job(*row) for row in await tx.all("load_jobs", rows=[(job.tenant_id, job.id)])]
        if found and found[0].status == "running" and found[0].due_at <= tx.now:
            await write(tx, found[0], await move(tx, replace(found[0], updated_at=tx.now)))

    await backend.write(work, tenants=[job.tenant_id])


async def move(tx: Tx, job: Job) -> Job:
    """Take rows away; when there are none, and long enough, the namespace itself."""
    namespace = msgspec.json.decode(job.detail, type=Emptying).namespace
    if gone := await take(tx, job.tenant_id, namespace):
        return replace(job, done=job.done + gone, total=job.done + gone, due_at=tx.now)
    if tx.now < job.created_at + QUIET_MS:
        return replace(job, due_at=job.created_at + QUIET_MS)
    await tx.run("delete_namespace", tenant_id=job.tenant_id, name=namespace)
    await add(tx, job.tenant_id, "namespace.deleted", namespace)
    return replace(job, status="completed")


async def take(tx: Tx, tenant_id: str, namespace: str) -> int:
    """Delete a page of a namespace's rows, each kind once nothing of the kinds before it is left; how many went."""
    of = {"tenant_id": tenant_id, "namespace": namespace, "first": f"{namespace}|", "past": f"{namespace}}}"}
    gone = await page_of(tx, [f"erase_{table}_of_namespace" for table in BEFORE], of)
    gone = gone or await take_executions(tx, tenant_id, namespace)
    return gone or await page_of(tx, [f"erase_{table}_of_namespace" for table in AFTER], of)


async def take_executions(tx: Tx, tenant_id: str, namespace: str) -> int:
    """Delete rows of the next executions, those themselves last; how many rows went."""
    found = await tx.all("executions_to_erase", tenant_id=tenant_id, namespace=namespace, limit=EXECUTIONS)
    if not found:
        return 0
    heads = [Going(*row) for row in found]
    tables = [row[0] for row in await tx.all("tables_of_executions")]
    of = {"tenant_id": tenant_id, "ids": [one.id for one in heads]}
    gone = await page_of(tx, [f"erase_{table}_of_executions" for table in tables], of)
    written = await take_out(tx, tenant_id, heads)  # these go with the namespace; no more than what went before them
    return max(1, gone - written)


async def page_of(tx: Tx, statements: list[str], of: dict[str, Any]) -> int:
    """Delete up to a page of rows by statements, one after another; how many went."""
    left = PAGE
    for statement in statements:
        if left:
            left -= await tx.run(statement, **of, limit=left)
    return PAGE - left


SWEEPS = [Sweep("namespaces.erase", 0, erase)]
