"""Jobs: work of the service's own that takes longer than a transaction, done in pages, resumed by whoever comes next.

A page is one transaction that moves the job's row with it: a process that dies leaves the job where its last page
ended.
"""

import msgspec

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.kernel.tables import Table

PAGES_A_ROUND = 20
"""Pages of one kind in one round of sweeps, so that a long job does not keep leases from being taken back."""


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


class CancelJob(msgspec.Struct, frozen=True):
    """Stop a job after the page that is under way; what is done stays done."""

    id: str


class CancellingJob(msgspec.Struct, frozen=True):
    """Fact: a job is about to be stopped; whoever cannot leave off in the middle refuses."""

    job: Job


async def due(backend: StateBackend, kind: str) -> list[Job]:
    """The jobs of a kind whose next page is due, of all tenants, the longest waiting first."""

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("due_jobs", now=tx.now, kind=kind, limit=PAGES_A_ROUND)

    return [Job(*row) for row in await backend.read(read, tenants=EVERY)]


TABLES = [Table(Job, ("tenant_id", "id"), 80, "load_jobs", "insert_jobs", "update_jobs")]
