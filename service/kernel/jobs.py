"""Jobs: work of the service's own that takes longer than a transaction, done in pages, resumed by whoever comes next.

A page is one transaction that moves the job's row with it: a process that dies leaves the job where its last page
ended. When more jobs of a kind are due than a round has pages, tenants have their turns beside what has waited longest;
a job whose page fails holds up no other.
"""

from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.kernel.principal import SYSTEM
from service.kernel.rota import Line, Took, in_turns
from service.kernel.tables import Table

log = structlog.get_logger()
PAGES_A_ROUND = 20
"""Pages of one kind in one round of sweeps, so that a long job does not keep leases from being taken back."""

WRITTEN = ("tenant_id", "id", "status", "detail", "total", "done", "due_at", "updated_at")
"""What a page changes of a job, as `update_jobs` takes it."""


class Job(msgspec.Struct, frozen=True):
    """A job: its kind, what it needs to know (`detail`, JSON), how far it is, and when its next page is due."""

    tenant_id: str
    id: str
    kind: str
    status: str
    detail: bytes
    total: int
    done: int
    due_at: int
    created_at: int
    updated_at: int


Turn = Callable[[Job], Awaitable[None]]
"""Does a job's next page."""


class CancelJob(msgspec.Struct, frozen=True):
    """Stop a job after the page that is under way; what is done stays done."""

    id: str


class CancellingJob(msgspec.Struct, frozen=True):
    """Fact: a job is about to be stopped; whoever cannot leave off in the middle refuses."""

    job: Job


async def due(backend: StateBackend, kind: str, tenant_id: str = SYSTEM, limit: int | None = None) -> list[Job]:
    """The jobs of a kind whose next page is due, of one tenant or (`SYSTEM`) of all, the longest waiting first."""

    most = PAGES_A_ROUND if limit is None else limit

    async def read(tx: Tx) -> list[Row]:
        if tenant_id == SYSTEM:
            return await tx.all("due_jobs", now=tx.now, kind=kind, limit=most)
        return await tx.all("due_jobs_of_tenant", tenant_id=tenant_id, now=tx.now, kind=kind, limit=most)

    return [Job(*row) for row in await backend.read(read, tenants=EVERY if tenant_id == SYSTEM else [tenant_id])]


async def pages_of(jobs: Iterable[Job], page: Turn) -> Took:
    """A page of each; what goes wrong with one is kept for the end."""
    found, errors = 0, list[BaseException]()
    for job in jobs:
        found += 1
        try:
            await page(job)
        except Exception as error:
            log.warning("a job's page failed and is tried again", job=job.id, kind=job.kind, error=str(error))
            errors.append(error)
    return Took(found, found - len(errors), tuple(errors))


async def in_turn(backend: StateBackend, line: Line, kind: str, tenants: str, page: Turn) -> None:
    """A round of the jobs of a kind: their pages by time and, when more are due, by tenants in turn, whom the statement
    `tenants` names."""

    async def take(tenant_id: str, limit: int) -> Took:
        return await pages_of(await due(backend, kind, tenant_id, limit), page)

    done = 0
    while done < PAGES_A_ROUND and (moved := (await in_turns(backend, line, tenants, take, PAGES_A_ROUND)).done):
        done += moved


async def write(tx: Tx, before: Job, job: Job) -> None:
    """A job as its page leaves it, in the page's own transaction: refused if another has moved it since `before`."""
    await tx.many("update_jobs", [(*(getattr(job, name) for name in WRITTEN), before.done, before.status)])


TABLES = [Table(Job, ("tenant_id", "id"), 80, "load_jobs", "insert_jobs", "update_jobs")]
